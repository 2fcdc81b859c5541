"""Tables of a report, from summary rows."""

import numpy as np
import pandas as pd
import pytest

from study.aggregate import named
from study.views import figures, tables


def row(gaussian=8, categorical=2, batch_size=16, **more):
    return {"gaussian": gaussian, "categorical": categorical, "batch_size": batch_size, "variant": "", **more}


@pytest.mark.parametrize(("sizes", "words"), [((16, 16, 0), "8+2"), ((16, 64, 0), "8+2, batch 16")])
def test_a_batch_size_is_named_where_there_are_several(sizes, words):
    summary = named({"trials": [row(batch_size=size) for size in sizes]}, set(sizes))
    assert summary["trials"][0]["latent"] == words


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ({"mean": 0.02, "interval": [0.01, 0.03], "draws": 4}, "+0.020 [+0.010, +0.030] *"),
        ({"mean": 0.02, "interval": [0.01, 0.03], "draws": 1, "encoders": 4}, "+0.020 [+0.010, +0.030] *"),
        ({"mean": 0.02, "interval": [0.01, 0.03], "draws": 3, "encoders": 2}, "+0.020 [+0.010, +0.030]"),
        ({"mean": -0.02, "interval": [-0.03, 0.01], "draws": 5}, "-0.020 [-0.030, +0.010]"),
        ({"mean": -0.03, "interval": [-0.06, -0.0003], "draws": 5}, "-0.030 [-0.060, -0.0003] *"),
        ({"mean": -0.0001, "interval": None, "draws": 1}, "0.000"),
    ],
)
def test_a_star_needs_an_interval_without_zero_and_enough_draws(cell, text):
    assert tables.signed(cell) == text


def test_restoration_has_a_line_for_each_set_of_images_and_a_column_for_who_restores():
    rows = [
        row(gaussian, images=images, pair=pair, mean=error)
        for gaussian in (64, 8)
        for images in ("T", "V")
        for pair, error in (("mean image", 0.07), ("unmatched", 0.2), ("matched", 0.01))
    ]
    table = tables.restoration(named({"reconstruction": rows}, {16}))
    assert list(table.columns) == ["latent", "images", "matched", "unmatched", "mean image"]
    assert table.to_numpy().tolist()[0] == ["8+2", "T", "0.0100", "0.2000", "0.0700"]
    assert list(table["latent"]) == ["8+2", "8+2", "64+2", "64+2"]


def test_the_paper_stands_beside_what_is_trained_as_the_study_trains_or_as_the_paper_words_it():
    def cell(mean):
        return {"mean": mean, "sigma": None, "interval": None, "paper": {"mean": 0.8, "sigma": None} | beside(mean)}

    def beside(mean):
        return {"difference": mean - 0.8, "interval": None}

    learned = {
        "dataset": "cifar100",
        "classes": 2,
        "classifier": "mlp",
        "protocol": "paper",
        "representation": "masked",
    }
    rows = [
        row(384, 20, variant=variant, accuracy=cell(mean), **learned)
        for variant, mean in (("", 0.9), ("learning_rate 1", 0.3), ("recipe paper", 0.5))
    ]
    (line,) = tables.classification(named({"classification": rows}, {16}), "paper", "accuracy").to_dict("records")
    assert list(line.items())[3:] == [
        ("384+20", "0.900"), ("384+20, learning_rate 1", "0.300"), ("384+20, recipe paper", "0.500"),
        ("the paper", "0.800"), ("384+20 less the paper", "+0.100"), ("384+20, recipe paper less the paper", "-0.300"),
    ]  # fmt: skip


@pytest.mark.parametrize(("classifiers", "column"), [(True, "less AdaBoost"), (False, "less pca")])
def test_differences_have_a_column_for_what_is_compared_with(classifiers, column):
    cell = {"mean": 0.1, "interval": None, "draws": 1}
    rows = [
        row(dataset="digits", classes=2, classifier="mlp", against=against, accuracy=cell)
        for against in ("adaboost", "pca")
    ]
    table = tables.differences(named({"differences": rows}, {16}), classifiers=classifiers)
    assert list(table.columns)[-1] == column
    assert table[column].tolist() == ["+0.100"]
    assert ("classifier" in table) != classifiers


@pytest.mark.parametrize(("lengths", "drawn"), [((8, 16), False), ((8, 16, 32), True)])
def test_three_lengths_of_the_masked_form_make_a_chart(tmp_path, lengths, drawn):
    learned = {"protocol": "shared", "classifier": "mlp", "dataset": "digits"}
    summary = named(
        {
            "classification": [
                row(n, **learned, representation=name, classes=classes, accuracy={"mean": n / classes / part})
                for n in lengths
                for classes in (2, 64)
                for name, part in (("masked", 1), ("pca", 2), ("random_projection", 4))
            ],
            "reconstruction": [
                row(n, images="V", pair=p, mean=1 / n) for n in lengths for p in ("matched", "mean image")
            ],
            "unmasking": [
                row(n, representation="masked", dataset="digits", reach_target=n if n < 32 else None, largest=64)
                for n in lengths
            ],
        },
        {16},
    )
    shown = figures.latent_length(tmp_path, summary, 100)
    assert [one.name for one in shown] == (["length"] if drawn else [])
    if drawn:
        numbers = pd.read_csv(tmp_path / "length.csv")
        control = "digits, 64 classes, principal components"
        assert numbers.groupby(["panel", "line"])["value"].apply(list).to_dict() == {
            ("accuracy", "digits, 64 classes"): [8 / 64, 16 / 64, 32 / 64],
            ("accuracy", control): [8 / 128, 16 / 128, 32 / 128],
            ("restored", "V"): [1 / 8, 1 / 16, 1 / 32],
            ("pairs", "digits"): [8.0, 16.0, 64.0],
        }
        assert numbers.loc[numbers["beyond"], "value"].tolist() == [64.0]
        assert numbers["share"].unique().tolist() == [0.10, 0.18, 0.34]


def test_names_on_a_logarithmic_axis_have_room():
    assert figures._apart([0.13, 0.275, 0.311, 0.312]) == [0.13, 0.275]
    assert figures._apart([0.1]) == [0.1]


def test_the_matrix_of_pairs_leaves_out_encoders_that_met_other_decoders():
    def kept(*decoders):
        images = np.full((1, 4, 4, 3), 51, dtype=np.uint8)
        return {
            "decoders": np.array(decoders),
            "originals": images,
            "restored": np.zeros((len(decoders), *images.shape)),
        }

    figure, numbers = figures.draw_pair_matrix({"a": kept("a", "b"), "b": kept("a", "b"), "c": kept("c")})
    figures.plt.close(figure)
    assert numbers[["encoder", "decoder"]].to_numpy().tolist() == [["a", "a"], ["a", "b"], ["b", "a"], ["b", "b"]]
    assert numbers["mse"].to_numpy() == pytest.approx(0.04)
