"""Tables of a report, from summary rows."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import cbook

from study.aggregate import named
from study.artifacts import read_arrays
from study.config import InputError
from study.opening import read_folder_config
from study.records import write_arrays
from study.views import figures, items, tables, words


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


def test_errors_stand_beside_the_papers_equations_and_few_means_have_no_deviation():
    rows = [
        row(384, 20, images=images, pair=pair, mean=0.01, sigma_images=0.1, sigma_batches=0.2, sigma_pairs=None,
            pairs=4, images_n=count)
        for images, count in (("V", 160), ("P", 159)) for pair in ("matched", "unmatched", "mean image")
    ]  # fmt: skip
    summary = named({"reconstruction": rows}, {16})
    table = tables.reconstruction(summary)
    assert list(table["the paper"]) == [
        "0.001811 ± 0.000647 (Eqs 1, 2)", "0.312014 ± 0.065740 (Eqs 3, 4)", "",
        "0.003550 ± 0.000709 (Eqs 9, 10)", "0.112298 ± 0.012321 (Eqs 11, 12)", "",
    ]  # fmt: skip
    assert list(table["σ batches of 16"]) == ["", "", "", "0.200000", "0.200000", "0.200000"]
    at_a_glance = tables.restoration(summary)
    assert list(at_a_glance["the paper, unmatched"]) == ["0.1123", "0.3120"]


def test_every_item_of_the_paper_is_in_a_section_of_the_report_or_has_a_reason():
    published = Path(__file__).parents[2] / "results" / "paper"
    section = items.section(read_folder_config(published))
    titles = re.findall("^## (.*)$", (published / "report.md").read_text(), flags=re.MULTILINE)
    (_, where), (_, settings) = section.tables
    placed = [here for here in where["here"] if any(here.startswith(title) for title in titles)]
    assert set(where["here"]) - set(placed) == {
        "nothing measured; sizes and layers: docs/protocol.md", "not in the paper's text; ours: docs/protocol.md"
    }  # fmt: skip
    assert section.title in titles
    here = dict(zip(settings["setting"], settings["here"], strict=True))
    assert here["latent, Gaussian + categorical"] == "384 + 20"
    assert here["epochs of the autoencoder"] == "20"


def test_plain_words_name_recipes_and_show_controls_beside_the_highest_accuracy():
    learned = {"dataset": "digits", "classes": 4, "protocol": "shared"}

    def scored(accuracy, representation="masked", classifier="mlp", **more):
        cell = {"mean": accuracy, "sigma": None, "interval": None, "draws": 1, "encoders": 1}
        what = {"representation": representation, "classifier": classifier, "accuracy": cell}
        return row(**more, **what, **learned)

    summary = {
        "trials": [row(trial="a", status="complete", recipe="paper"), row(trial="b", status="complete", recipe="mine")],
        "classification": [
            scored(0.8), scored(0.7, classifier="adaboost"), scored(0.9, "raw", batch_size=0),
            scored(0.85, "raw", "random_forest", batch_size=0), scored(0.6, "pca", batch_size=0),
        ],
        "reconstruction": [], "unmasking": [], "attacks": [],
    }  # fmt: skip
    told = words.plain_words(named(summary, {16, 0}))
    assert any(
        "recipe `paper`, the paper's words" in t and "`mine`, which this version does not know" in t for t in told
    )
    (useful,) = (t for t in told if t.startswith("Is it useful?"))
    assert "is 0.800 (Neural network, latent 8+2)" in useful
    assert "the best classifier reaches: pca, 10 (0.600), raw pixels (0.900)." in useful


def test_where_no_autoencoder_is_complete_nothing_is_said_of_recipes():
    failed = {"trials": [row(trial="a", status="failed", recipe="paper")]}
    told = words.plain_words({"classification": [], "reconstruction": [], "unmasking": [], "attacks": []} | failed)
    assert not any("How they were trained" in t for t in told)
    assert any("1 autoencoders failed" in t for t in told)


def test_losses_of_accuracy_have_no_star_and_the_papers_beside_its_own_splits_alone():
    lost = {"dataset": "cifar100", "classifier": "mlp", "few": 2, "many": 4, "paper": 0.083}
    rows = [
        row(384, 20, protocol=protocol, drop=0.2, interval=[0.1, 0.3], draws=10, encoders=4, **lost)
        for protocol in ("paper", "shared")
    ]
    summary = named({"drops": rows}, {16})
    line = {"data": "cifar100", "classes": "2 to 4", "classifier": "Neural network", "latent": "384+20"}
    line["accuracy lost"] = "+0.200 [+0.100, +0.300]"
    assert tables.drops(summary, "shared").to_dict("records") == [line]
    assert tables.drops(summary, "paper").to_dict("records") == [line | {"the paper": "+0.083"}]


def test_the_paper_stands_beside_its_own_latent_however_that_was_trained():
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
        row(gaussian, 20, variant=variant, accuracy=cell(mean), **learned)
        for gaussian, variant, mean in ((384, "", 0.9), (384, "recipe paper", 0.5), (500, "", 0.3))
    ]
    (line,) = tables.classification(named({"classification": rows}, {16}), "paper", "accuracy").to_dict("records")
    assert list(line.items())[3:] == [
        ("384+20", "0.900"), ("384+20, recipe paper", "0.500"), ("500+20", "0.300"),
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
    grown = {"a": kept("a", "b", "d"), "b": kept("a", "b"), "d": kept("a", "b", "d")}  # and stopped before b's third
    figure, numbers = figures.draw_pair_matrix(grown)
    figures.plt.close(figure)
    assert set(numbers["decoder"]) == {"a", "b"}
    assert numbers["mse"].to_numpy() == pytest.approx(0.04)


def test_names_with_dollars_are_no_formulas():
    figure = figures.confusion_matrix(np.array([[3, 1, 0], [1, 3, 0]]), ["$10_$20", "a$^$"], "npz:$x_$.npz")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    assert picture.getvalue().startswith(b"\x89PNG")
    (axis,) = figure.axes
    for shown in (axis.title, *axis.get_yticklabels()):
        assert "$" in shown.get_text()
        assert not cbook.is_math_text(shown.get_text())
    figures.plt.close(figure)


def test_a_damaged_artifact_is_told(tmp_path):
    write_arrays(tmp_path / "a.npz", x=np.arange(1000))
    content = (tmp_path / "a.npz").read_bytes()
    for damaged in (content[:-40], b"", b"hello"):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.npz: is damaged .*: remove it"):
            read_arrays(tmp_path / "a.npz")


def test_grey_pixels_keep_their_brightness_and_other_numbers_are_spread():
    from matplotlib import pyplot as plt

    from study.views.figures import picture, strip

    dim = np.full((2, 4, 4, 1), 120, dtype=np.uint8)
    dim[0, 0, 0] = 124
    figure, axes = plt.subplots(1, 3)
    picture(axes[0], dim[0])
    assert axes[0].images[0].get_clim() == (0, 255)
    strip(axes[1], dim)
    shown = np.asarray(axes[1].images[0].get_array())
    assert np.unique(shown[shown[..., 3] == 1, 0]) == pytest.approx(np.array([120, 124]) / 255, abs=0.01)
    strip(axes[2], dim.astype(np.float64))
    assert axes[2].images[0].get_array()[..., 0].max() == 1
    plt.close(figure)


def test_points_of_a_stopped_study_stand_over_their_own_number_of_classes(tmp_path, monkeypatch):
    from study.views import figures

    drawn = []
    monkeypatch.setattr(figures, "save", lambda _, __, figure, *___, **____: drawn.append(figure))
    cell = {"mean": 0.5, "sigma": 0.1, "interval": [0.4, 0.6], "draws": 2, "encoders": 1}
    rows = [
        {"dataset": "toy", "latent": "4+2", "representation": "masked", "protocol": "shared", "classifier": name}
        | {"gaussian": 4, "categorical": 2, "batch_size": 4, "variant": "", "classes": classes, "accuracy": cell}
        for name, counts in (("mlp", (2, 3, 4)), ("adaboost", (2, 4)))
        for classes in counts
    ]
    figures.accuracy(tmp_path, {"classification": rows}, "shared")
    (axis,) = drawn[0].axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["2", "3", "4"]
    assert axis.get_xlim()[0] <= 0
    assert axis.get_xlim()[1] >= 2
    assert [[round(x) for x in line[0].get_xdata()] for line in axis.containers] == [[0, 1, 2], [0, 2]]
