"""Loading without trust, one split, reproducible draws."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from study import datasets
from study.config import DataConfig, InputError
from study.datasets import ImageSet, draws, load, patterns, split


def archive(path, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8),
        "train_labels": np.arange(60) % 3,
        "test_images": rng.integers(0, 256, (15, 32, 32, 3), dtype=np.uint8),
        "test_labels": np.arange(15) % 3,
        "class_names": np.array(["a", "b", "c"]),
    } | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return f"npz:{path}"


def labelled(n=600, classes=4, test=100):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (n + test, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(n + test) % classes
    return ImageSet("toy", images[:n], labels[:n], images[n:], labels[n:], tuple("abcd"[:classes]))


class TestNpz:
    def test_a_good_one_is_read(self, tmp_path):
        data = load(archive(tmp_path / "x.npz"), tmp_path)
        assert data.images.shape == (75, 32, 32, 3)
        assert data.labels.dtype == np.int64
        assert data.class_names == ("a", "b", "c")

    def test_a_known_name_is_looked_for_in_the_data_folder(self, tmp_path):
        archive(tmp_path / "mnist.npz")
        assert load("mnist", tmp_path).name == "mnist"

    def test_grey_becomes_rgb_and_sizes_fit(self, tmp_path):
        grey = np.full((60, 28, 28), 77, dtype=np.uint8)
        data = load(archive(tmp_path / "x.npz", train_images=grey, test_images=grey[:15, :, :, None]), tmp_path)
        assert data.train_images.shape == (60, 32, 32, 3)
        assert (data.train_images == 77).all()
        assert load(archive(tmp_path / "y.npz"), tmp_path, size=16, channels=1).images.shape == (75, 16, 16, 1)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"train_images": None}, "has no train_images"),
            ({"train_images": np.zeros((60, 32, 32, 3))}, "float64.*must be uint8"),
            ({"train_images": np.full((60, 32, 32, 3), np.nan)}, "not finite"),
            ({"train_images": np.zeros((0, 32, 32, 3), np.uint8), "train_labels": np.zeros(0, int)}, "at least one"),
            ({"train_images": np.zeros((60, 32, 32, 4), np.uint8)}, r"\(60, 32, 32, 4\): must be \(N, H, W\)"),
            ({"train_images": np.zeros((60, 32), np.uint8)}, r"\(60, 32\)"),
            ({"train_labels": np.zeros(59, int)}, "one for each of the 60 images"),
            ({"train_labels": np.zeros(60)}, "float64"),
            ({"train_labels": np.full(60, 3)}, "labels from 0 to 3: must be from 0 to 2"),
            ({"train_labels": np.full(60, -1)}, "labels from -1"),
            ({"train_labels": np.full(60, 2**40), "class_names": None}, "labels up to 1099511627776 of 75 images"),
            ({"class_names": np.array("cats")}, r"class_names of shape \(\): must be a list"),
            ({"train_labels": np.array([{}] * 60)}, "pickled objects, which are never loaded"),
        ],
    )
    def test_a_bad_one_is_told(self, tmp_path, changes, told):
        with pytest.raises(InputError, match=told):
            load(archive(tmp_path / "x.npz", **changes), tmp_path)

    def test_missing_truncated_and_foreign_files_are_told(self, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            load(f"npz:{tmp_path / 'none.npz'}", tmp_path)
        archive(tmp_path / "x.npz")
        np.save(tmp_path / "x.npy", np.zeros(3))
        content, array = (tmp_path / "x.npz").read_bytes(), (tmp_path / "x.npy").read_bytes()
        for wrong in (content[:5000], content[:-40], b"hello", b"", array):
            (tmp_path / "y.npz").write_bytes(wrong)
            with pytest.raises(InputError, match=r"y\.npz"):
                load(f"npz:{tmp_path / 'y.npz'}", tmp_path)


def test_an_unknown_name_and_an_absent_set_are_told(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="'cifar11': must be one of cifar10"):
        load("cifar11", tmp_path)
    for scheme in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")  # nobody answers there: no network
    with pytest.raises(InputError, match=r"put cifar10\.npz or torchvision's own files there"):
        load("cifar10", tmp_path)


def test_files_of_a_download_that_broke_are_no_set(tmp_path):
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (tmp_path / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
        (tmp_path / "MNIST" / "raw" / name).touch()
    assert datasets.present("mnist", tmp_path) == ""


def test_digits_and_photos_need_nothing():
    digits, photos = load("digits", datasets.Path("nowhere")), load("photos", datasets.Path("nowhere"))
    assert (len(digits.train_images), len(digits.test_images)) == (1437, 360)
    assert digits.digest() == load("digits", datasets.Path("nowhere")).digest()
    assert photos.train_images.shape[1:] == (32, 32, 3)
    assert len(photos.train_images) > 5000
    assert len({image.tobytes() for image in photos.train_images}) > 5000


class TestAutoencoderParts:
    def test_the_first_images_are_kept_from_training(self):
        data = labelled()
        train, held_out = datasets.autoencoder_parts(data, DataConfig(held_out=50, train_images=100))
        np.testing.assert_array_equal(held_out, data.train_images[:50])
        np.testing.assert_array_equal(train, data.train_images[50:150])

    def test_zero_takes_the_sets_own_test_part(self):
        data = labelled()
        _, held_out = datasets.autoencoder_parts(data, DataConfig(held_out=0))
        assert held_out is data.test_images

    @pytest.mark.parametrize(("held_out", "test"), [(600, 100), (0, 0)])
    def test_more_than_there_is_is_refused(self, held_out, test):
        with pytest.raises(InputError, match="held_out"):
            datasets.autoencoder_parts(labelled(test=test), DataConfig(held_out=held_out))


class TestSplit:
    @pytest.mark.parametrize(("protocol", "classifier"), [("paper", "mlp"), ("paper", "adaboost"), ("shared", "mlp")])
    def test_no_image_is_in_two_parts(self, protocol, classifier):
        parts = split(labelled(), protocol, classifier, 3)
        together = np.concatenate((parts.train, parts.validation, parts.test))
        assert len(np.unique(together)) == len(together) == 700

    def test_the_papers_network_validates_on_the_first_part_and_is_tested_on_the_test_part(self):
        parts = split(labelled(), "paper", "mlp", 3)
        np.testing.assert_array_equal(parts.validation, np.arange(120))
        np.testing.assert_array_equal(parts.test, np.arange(600, 700))

    def test_a_set_sorted_by_class_gives_every_class_to_every_part(self):
        data = labelled()
        order = np.argsort(data.train_labels, kind="stable")
        data = dataclasses.replace(data, train_images=data.train_images[order], train_labels=data.train_labels[order])
        parts = split(data, "paper", "mlp", 3)
        assert np.bincount(data.labels[parts.validation]).tolist() == [30, 30, 30, 30]
        assert np.bincount(data.labels[parts.train]).tolist() == [120, 120, 120, 120]

    def test_the_papers_classical_split_is_stratified_over_both_parts(self):
        data = labelled()
        parts = split(data, "paper", "random_forest", 3)
        assert len(parts.validation) == 0
        assert np.bincount(data.labels[parts.test]).tolist() == [35, 35, 35, 35]
        assert (parts.test < 600).any()
        assert (parts.test >= 600).any()

    def test_shared_is_the_same_for_every_classifier_and_never_trains_on_the_test_part(self):
        data = labelled()
        one, other = (split(data, "shared", name, 3) for name in ("mlp", "adaboost"))
        assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))
        assert max(one.train.max(), one.validation.max()) < 600
        assert np.bincount(data.labels[one.validation]).tolist() == [30, 30, 30, 30]

    def test_an_image_of_both_parts_leaves_the_shared_test_part_alone(self):
        data = labelled()
        data.test_images[7] = data.train_images[5]
        assert 607 not in split(data, "shared", "mlp", 3).test
        assert len(split(data, "shared", "mlp", 3).test) == 99
        assert 607 in split(data, "paper", "mlp", 3).test

    def test_ones_own_archive_without_a_test_part_gives_a_fifth_of_each_class(self, tmp_path):
        data = load(archive(tmp_path / "x.npz", test_images=None, test_labels=None), tmp_path)
        assert (len(data.train_images), len(data.test_images)) == (48, 12)
        assert np.bincount(data.test_labels).tolist() == [4, 4, 4]


class TestDraws:
    def test_they_repeat_whatever_else_is_drawn(self):
        data = load("digits", datasets.Path("nowhere"))
        assert draws(data, 3, 10, seed=1)[:4] == draws(data, 3, 4, seed=1)
        assert draws(data, 3, 10, seed=1) != draws(data, 3, 10, seed=2)
        assert all(len(set(drawn)) == 3 and drawn == tuple(sorted(drawn)) for drawn in draws(data, 3, 10, 1))

    def test_all_classes_are_one_draw(self):
        assert draws(labelled(), 4, 10, 1) == [(0, 1, 2, 3)]

    def test_a_class_that_is_named_and_has_no_images_is_never_drawn(self):
        some = labelled()
        named = dataclasses.replace(some, class_names=(*some.class_names, "none", "neither"))
        assert draws(named, 3, 5, 1) == draws(some, 3, 5, 1)
        assert draws(named, 4, 5, 1) == [(0, 1, 2, 3)]

    def test_more_classes_than_there_are_are_refused(self):
        with pytest.raises(InputError, match="toy has 4 classes: 5 cannot be drawn"):
            draws(labelled(), 5, 1, 1)


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (64, 1), (16, 3)])
def test_patterns_are_black_and_white_and_different(size, channels):
    drawn = patterns(size, channels)
    assert drawn.shape[1:] == (size, size, channels)
    assert set(np.unique(drawn)) == {0, 255}
    assert len({image.tobytes() for image in drawn}) >= 0.9 * len(drawn) > 20


@pytest.mark.slow
def test_the_real_archives_are_what_they_should_be(archives):
    cifar100 = load("cifar100", archives)
    assert cifar100.train_images.shape == (50_000, 32, 32, 3)
    assert len(cifar100.class_names) == 100
    assert len(split(cifar100, "paper", "mlp", 0).validation) == 10_000
    assert len(split(cifar100, "shared", "mlp", 0).test) == 10_000 - 10
    mnist = load("mnist", archives)
    assert mnist.images.shape == (70_000, 32, 32, 3)


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        """Two unequal classes of grey pictures, 7 and 20, the second brighter."""
        rng = np.random.default_rng(0)
        for name, count, least in (("b, dark", 7, 0), ("a", 20, 128)):
            (tmp_path / "mine" / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(least, least + 100, (40, 50), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{i}.png")
        return tmp_path / "mine"

    def test_class_folders_are_classes_and_a_fifth_of_each_tests(self, folder):
        data = load(f"folder:{folder}", folder)
        assert data.class_names == ("a", "b, dark")
        assert np.bincount(data.train_labels).tolist() == [16, 6]
        assert set(data.train_labels[:10]) == {0, 1}  # the first images are kept from training
        assert np.bincount(data.test_labels).tolist() == [4, 1]
        assert ((data.images.mean(axis=(1, 2, 3)) > 110) == (data.labels == 0)).all()
        assert data.images.shape == (27, 32, 32, 3)
        assert load(f"folder:{folder}", folder).digest() == data.digest()

    def test_without_classes_there_is_one(self, folder):
        data = load(f"folder:{folder / 'a'}", folder, size=16, channels=1)
        assert data.class_names == ("picture",)
        assert data.images.shape == (20, 16, 16, 1)

    def test_a_thousand_unequal_classes_are_in_every_part(self, tmp_path):
        rng = np.random.default_rng(0)
        sizes = [5 + number % 4 for number in range(1000)]
        for number, size in enumerate(sizes):
            (tmp_path / "many" / f"{number:03}").mkdir(parents=True)
            for i in range(size):
                pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "many" / f"{number:03}" / f"{i}.png")
        data = load(f"folder:{tmp_path / 'many'}", tmp_path, size=8, channels=1)
        assert np.bincount(data.labels).tolist() == sizes
        for protocol, classifier in (("shared", "mlp"), ("paper", "mlp"), ("paper", "random_forest")):
            parts = split(data, protocol, classifier, 0)
            for part in (parts.train, parts.test, *([parts.validation] if classifier == "mlp" else [])):
                assert len(np.unique(data.labels[part])) == 1000

    def test_what_cannot_be_split_is_told(self, folder):
        for file in sorted((folder / "b, dark").iterdir())[:3]:
            file.unlink()
        with pytest.raises(InputError, match=r"class 'b, dark' has 4 pictures: a split takes 5"):
            load(f"folder:{folder}", folder)
        (folder / "a" / "0.png").rename(folder / "stray.png")
        with pytest.raises(InputError, match=r"stray.png has no class: put every picture into a class folder"):
            load(f"folder:{folder}", folder)
        (folder / "a" / "1.png").write_text("no picture")
        with pytest.raises(InputError, match=r"1\.png: is not a picture"):
            load(f"folder:{folder}", folder)
