"""What is masked and what is learned from it, where what is given cannot be used: one line, and no file."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from aae.config import LatentConfig, NetworkConfig
from aae.keys import save_pair
from aae.networks import Autoencoder
from study.cli import main


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Of an autoencoder that learned nothing."""
    folder = tmp_path_factory.mktemp("pair")
    torch.manual_seed(0)
    network = NetworkConfig(image_size=8, channels=1, widths=(4,), discriminator_widths=(4,), couplings=0)
    save_pair(folder, Autoencoder(LatentConfig(gaussian=4, categorical=0), network), network)
    return folder / "encoder.safetensors"


@pytest.fixture
def mask(encoder, tmp_path, capsys):
    """Mask these pictures; return the exit status, what was told, and the file."""

    def run(images, *options):
        out = tmp_path / "masked.parquet"
        status = main(["mask", str(images), "--encoder", str(encoder), "--out", str(out), *options])
        assert out.exists() == (status == 0)
        assert not list(tmp_path.glob(".*"))
        return status, capsys.readouterr().err, out

    return run


def draw(folder, count=6):
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.full((8, 8), 20 * number, dtype=np.uint8)).save(folder / f"{number}.png")


@pytest.mark.parametrize("beside", [True, False])
def test_a_picture_without_a_class_is_told_where_labels_are_asked_for(mask, tmp_path, beside):
    draw(tmp_path / "own", 1)
    if beside:
        draw(tmp_path / "own" / "cat")
    status, told, _ = mask(tmp_path / "own", "--labels")
    assert (status, "own: 0.png has no class: put every picture into a class folder" in told) == (2, True)
    assert mask(tmp_path / "own")[0] == 0


@pytest.mark.parametrize("labels", [{}, {"labels": np.arange(3)}])
def test_an_archive_without_labels_is_told_where_they_are_asked_for(mask, tmp_path, labels):
    np.savez(tmp_path / "own.npz", images=np.zeros((3, 8, 8), dtype=np.uint8), **labels)
    status, told, out = mask(tmp_path / "own.npz", "--labels")
    if labels:
        assert pq.read_table(out)["label"].to_pylist() == ["0", "1", "2"]
    else:
        assert (status, "own.npz: image 0 has no class" in told) == (2, True)


def test_no_picture_at_all_is_told(mask, tmp_path):
    np.savez(tmp_path / "own.npz", images=np.zeros((0, 8, 8), dtype=np.uint8))
    assert "own.npz: images holds no images" in mask(tmp_path / "own.npz")[1]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "x.png").write_text("no picture")
    status, told, _ = mask(tmp_path / "own", "--skip-broken")
    assert (status, "own: holds no picture that can be read" in told) == (2, True)


@pytest.mark.parametrize("option", ["--labels", "--names"])
def test_a_name_that_is_no_text_is_told_where_it_is_asked_for(mask, tmp_path, option):
    draw(tmp_path / "own" / "\udcffcat")
    status, told, _ = mask(tmp_path / "own", option)
    assert (status, "is not UTF-8: choose another name" in told) == (2, True)
    assert mask(tmp_path / "own")[0] == 0


class TestClassify:
    @pytest.fixture
    def masked(self, mask, tmp_path):
        for name in ("cat", "dog"):
            draw(tmp_path / "own" / name)
        return mask(tmp_path / "own", "--labels")[2]

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["--classifiers", "mlp", "mlp"], "--classifiers mlp mlp: must be different ones"),
            (["--predict", "m", "--out", "o.csv", "--splits", "3"], "--splits: does not go with --predict"),
            (["--predict", "m", "--out", "o.csv", "--seed", "0"], "--seed: does not go with --predict"),
        ],
    )
    def test_what_does_not_go_together_is_told(self, masked, capsys, options, told):
        assert main(["classify", str(masked), *options]) == 2
        assert told in capsys.readouterr().err

    def test_one_file_for_two_things_is_told_before_anything_is_trained(self, masked, tmp_path, capsys):
        out = tmp_path / "both"
        assert main(["classify", str(masked), "--save", str(out), "--out", str(out)]) == 2
        assert "--out names the same file: choose two" in capsys.readouterr().err
        assert not out.exists()

    def test_numbers_too_large_to_learn_from_are_told(self, masked, tmp_path, capsys):
        table = pq.read_table(masked)
        vectors = np.full((table.num_rows, 4), 3.4e38, dtype=np.float32)
        vectors[::3] *= -1  # less their mean they are no float32
        place = table.column_names.index("masked")
        column = pa.ListArray.from_arrays(
            pa.array(range(0, vectors.size + 1, 4), pa.int32()), pa.array(vectors.ravel())
        )
        pq.write_table(table.set_column(place, table.schema.field("masked"), column), tmp_path / "huge.parquet")
        assert main(["classify", str(tmp_path / "huge.parquet"), "--classifiers", "mlp"]) == 2
        assert "hold numbers too large to learn from" in capsys.readouterr().err

    def test_one_class_is_told_by_its_number(self, mask, tmp_path, capsys):
        draw(tmp_path / "one" / "cat")
        assert main(["classify", str(mask(tmp_path / "one", "--labels")[2])]) == 2
        assert "takes two classes, of five images each; classes here: 1, images in the smallest: 6" in (
            capsys.readouterr().err
        )

    def test_one_split_has_no_interval(self, masked, tmp_path, capsys):
        out = tmp_path / "table.csv"
        options = ["--classifiers", "random_forest", "--splits", "1", "--out", str(out)]
        assert main(["classify", str(masked), *options]) == 0
        printed = capsys.readouterr().out
        assert "accuracy" in printed
        assert "[" not in printed
        assert pd.read_csv(out)["accuracy_low"].isna().all()
