"""Pictures that strangers hand over: archives and files that are damaged, hostile, or larger than they look."""

import contextlib
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from study import pictures
from study.config import InputError
from study.datasets import load
from study.pictures import Pictures


def encoded(kind):
    content, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(content, kind, exif=exif)
    return content.getvalue()


#: A picture in each of the formats that keep notes.
WHOLE = {kind: encoded(kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF")}


class TestArchivesOfPictures:
    IMAGES = np.zeros((4, 16, 16), dtype=np.uint8)

    def chunks(self, tmp_path, **arrays):
        np.savez(tmp_path / "x.npz", **({"images": self.IMAGES} | arrays))
        return list(Pictures(tmp_path / "x.npz", size=16, channels=1))

    def test_labels_may_be_text(self, tmp_path):
        (chunk,) = self.chunks(tmp_path, labels=np.array(["cat", "dog", "cat", "cow"]))
        assert chunk.labels == ["cat", "dog", "cat", "cow"]

    @pytest.mark.parametrize(
        ("arrays", "told"),
        [
            ({"labels": np.zeros(4), "class_names": np.array(["a"])}, "must be whole numbers or text"),
            ({"labels": np.zeros(4, int), "class_names": np.array("a")}, "must be a list"),
            ({"images": np.zeros((4, 0, 16), dtype=np.uint8)}, "pixels each"),
        ],
    )
    def test_what_cannot_be_is_told(self, tmp_path, arrays, told):
        with pytest.raises(InputError, match=told):
            self.chunks(tmp_path, **arrays)

    def test_a_header_of_gigabytes_is_not_read(self, tmp_path):
        head = b"\x93NUMPY\x02\x00" + (4_000_000_000).to_bytes(4, "little") + b"{"
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr("images.npy", head)
        with pytest.raises(InputError, match="must be a plain array"):
            Pictures(tmp_path / "x.npz", size=16, channels=1)

    @pytest.mark.parametrize("name", ["labels", "class_names"])
    def test_labels_that_would_fill_the_memory_are_told(self, tmp_path, monkeypatch, name):
        monkeypatch.setattr(pictures, "SMALL", 1000)
        with pytest.raises(InputError, match=f"{name}: unpacks to more than 1,000 bytes"):
            self.chunks(tmp_path, **{"labels": np.zeros(4, int), name: np.array(["x" * 100] * 4)})

    def test_the_labels_that_are_read_are_those_whose_size_was_looked_at(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pictures, "SMALL", 1000)
        np.savez(tmp_path / "x.npz", images=self.IMAGES, labels=np.array([0, 1, 2, 3]))
        with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive, archive.open("labels", "w") as file:
            np.lib.format.write_array(file, np.zeros(10_000))
        (chunk,) = Pictures(tmp_path / "x.npz", size=16, channels=1)
        assert chunk.labels == ["0", "1", "2", "3"]

    def test_large_images_come_in_smaller_chunks(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pictures, "CHUNK_BYTES", 3 * 16 * 16 + 1)
        images = np.arange(7, dtype=np.uint8)[:, None, None] * np.ones((16, 16), dtype=np.uint8)
        chunks = self.chunks(tmp_path, images=images, labels=np.arange(7))
        assert [len(chunk.images) for chunk in chunks] == [3, 3, 1]
        assert [label for chunk in chunks for label in chunk.labels] == list("0123456")
        assert np.array_equal(np.concatenate([chunk.images for chunk in chunks])[..., 0], images)

    @pytest.mark.parametrize("change", ["damaged", "encrypted", "method", "shape"])
    def test_a_hostile_archive_is_told(self, tmp_path, change):
        path = tmp_path / "x.npz"
        images = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
        if change == "shape":  # says that it holds more than there is memory
            content = io.BytesIO()
            np.save(content, images)
            head = content.getvalue().replace(b"(40, 16, 16), }        ", b"(9999999, 999, 999), } ")
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("images.npy", head)
                archive.writestr("train_images.npy", head)
        else:
            np.savez_compressed(path, images=images, train_images=images)
            content = bytearray(path.read_bytes())
            for mark, flags, method in ((b"PK\x03\x04", 6, 8), (b"PK\x01\x02", 8, 10)):
                place = content.find(mark)
                while place >= 0:
                    content[place + flags] |= change == "encrypted"
                    content[place + method] = 99 if change == "method" else content[place + method]
                    place = content.find(mark, place + 1)
            if change == "damaged":
                content[200:4000] = bytes(3800)
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"x\.npz"):
            list(Pictures(path, size=16, channels=1))
        with pytest.raises(InputError, match=r"x\.npz"):
            load(f"npz:{path}", tmp_path)


class TestFiles:
    def test_a_format_that_starts_another_program_is_not_opened(self, tmp_path, monkeypatch):
        started = []
        monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: started.append(a))
        eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n%%EndProlog\nshowpage\n"
        (tmp_path / "x.png").write_text(eps)
        with pytest.raises(InputError, match="is not a picture that can be read"):
            list(Pictures(tmp_path, size=16, channels=1))
        assert not started

    @settings(max_examples=600, deadline=None, derandomize=True)
    @given(data=st.data())
    def test_a_damaged_picture_is_told_or_read(self, data):
        content = bytearray(WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))])
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "x.png").write_bytes(content)
            with contextlib.suppress(InputError):  # and nothing else
                (chunk,) = Pictures(Path(name), size=16, channels=3)
                assert chunk.images.shape == (1, 16, 16, 3)

    def test_a_turn_that_is_no_number_is_told(self, tmp_path):
        """Pillow's own reader of such a note raises what is made for programs alone."""
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "x.jpg", exif=exif)
        content = (tmp_path / "x.jpg").read_bytes()
        begin = content.index(b"\x01\x12\x00\x03") + 2
        (tmp_path / "x.jpg").write_bytes(content[:begin] + b"\x00\x02" + content[begin + 2 :])
        with contextlib.suppress(InputError):
            assert len(list(Pictures(tmp_path, size=8, channels=3))) == 1

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("ending", ["png", "tif"])
    def test_sixteen_bits_are_scaled_not_cut_off(self, tmp_path, channels, ending):
        ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
        exif = Image.Exif()
        exif[0x0112] = 3  # upside down
        Image.fromarray(ramp).save(tmp_path / f"x.{ending}", exif=exif)
        (chunk,) = Pictures(tmp_path, size=16, channels=channels)
        turned = np.arange(256, dtype=np.uint8).reshape(16, 16)[::-1, ::-1]
        np.testing.assert_array_equal(chunk.images[0], np.repeat(turned[..., None], channels, axis=2))

    @pytest.mark.parametrize("kind", [np.float32, np.int32])
    def test_what_has_no_black_and_white_of_its_own_is_told(self, tmp_path, kind):
        Image.fromarray(np.eye(16, dtype=kind)).save(tmp_path / "x.tif")
        with pytest.raises(InputError, match=r"x\.tif: .*32 bits a channel"):
            list(Pictures(tmp_path, size=16, channels=1))

    def test_a_link_to_itself_is_told(self, tmp_path):
        (tmp_path / "x.png").symlink_to(tmp_path / "x.png")
        with pytest.raises(InputError, match=r"x\.png: is a link that leaves"):
            list(Pictures(tmp_path, size=16, channels=1))
