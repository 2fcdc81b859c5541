"""A saved network is the fitted one; whatever else a file holds is told, and nothing in it runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from sklearn.preprocessing import StandardScaler

from classifiers import MLP
from study.config import InputError
from study.handover import inspect
from study.model_file import LONGEST, Model, ModelInfo, is_model, read_model, write_model

INFO = ModelInfo(
    pair="ab" * 16,
    gaussian=5,
    categorical=2,
    classes=("cat", "Ümläut, 猫"),
    hidden=(4, 3),
    trained_on=60,
    validation_accuracy=0.75,
)


def fitted(info=INFO):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    vectors = (rng.normal(size=(60, 7)) + 4 * labels[:, None]).astype(np.float32)
    scaler = StandardScaler().fit(vectors)
    network = MLP(hidden=info.hidden, epochs=20, random_state=0).fit(scaler.transform(vectors), labels)
    return Model(info, scaler, network), vectors


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    write_model(path, fitted()[0])
    return path


def rewritten(path, arrays=None, **header):
    """The file again with other arrays or another header; a header of None is left out."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"] | header
    tensors = load(content) | (arrays or {})
    path.write_bytes(save(tensors, metadata={k: v for k, v in metadata.items() if v is not None}))


def described(**values):
    """The description with other values, as JSON."""
    plain = {key: value for key, value in vars(INFO).items() if key != "pair"} | values
    return json.dumps(plain)


def test_it_predicts_what_the_fitted_one_does(saved):
    model, vectors = fitted()
    read = read_model(saved)
    assert read.info == INFO
    for mine, theirs in zip(model.predict(vectors), read.predict(vectors), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert set(read.predict(vectors)[0]) == {0, 1}


def test_it_says_what_it_is(saved):
    told = inspect(saved)
    assert told["kind"] == "classifier"
    assert told["pair"] == INFO.pair
    assert told["classes"] == INFO.classes
    assert told["parameters"] == 4 * 7 + 4 + 3 * 4 + 3 + 2 * 3 + 2


def test_what_would_not_be_read_is_not_written(tmp_path):
    long = replace(INFO, classes=("a", "b" * LONGEST))
    with pytest.raises(InputError, match="names of the classes are longer"):
        write_model(tmp_path / "m", fitted(long)[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_model(tmp_path / "file" / "m", fitted()[0])


def test_numbers_beyond_floats_are_told(saved):
    vectors = np.full((2, 7), 3e38, dtype=np.float32)
    rewritten(saved, {"scale": np.full(7, 1e-300)})
    with pytest.raises(InputError, match="too large"):
        read_model(saved).predict(vectors)
    rewritten(saved, {"scale": np.ones(7), "W1": np.full((4, 7), 3e38, dtype=np.float32)})
    with pytest.raises(InputError, match="too large"):
        read_model(saved).predict(vectors)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"format": "99"}, "cannot be read here"),
        ({"part": "encoder"}, "no saved classifier"),
        ({"model": None}, "no saved classifier"),
        ({"pair": "x\x1b[31m"}, "pair = "),
        ({"model": "{"}, "not valid"),
        ({"model": "[1]"}, "must be a table"),
        ({"model": "[" * 500_000}, "not valid"),
        ({"model": " " * (LONGEST + 1)}, "cannot be read here"),
        ({"model": "{}"}, "not valid"),
        ({"model": described(pair="cd" * 16)}, "not valid"),
        ({"model": described(more=1)}, "not valid"),
        ({"model": described(gaussian=10**400)}, "gaussian"),
        ({"model": described(gaussian=8000)}, "does not fit"),
        ({"model": described(gaussian=5.0)}, "gaussian"),
        ({"model": described(gaussian=True)}, "gaussian"),
        ({"model": described(hidden=[4])}, "hidden"),
        ({"model": described(hidden=[65_536, 65_536])}, "does not fit"),
        ({"model": described(hidden=[[4], {}])}, "hidden"),
        ({"model": described(hidden="43")}, "hidden"),
        ({"model": described(classes=["cat"])}, "classes"),
        ({"model": described(classes=["cat", "cat"])}, "classes"),
        ({"model": described(classes=["cat", {}])}, "classes"),
        ({"model": described(classes=["cat", "\ud800"])}, "classes"),
        ({"model": described(classes=["a", "b", "c"])}, "does not fit"),
        ({"model": described(validation_accuracy=float("nan"))}, "validation_accuracy"),
        ({"model": described(trained_on=-1)}, "trained_on"),
    ],
)
def test_a_relabelled_file_is_refused(saved, header, told):
    rewritten(saved, **header)
    with pytest.raises(InputError, match=told) as caught:
        read_model(saved)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300 + len(str(saved))


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"W2": np.full((3, 4), np.nan, dtype=np.float32)}, "W2 holds values"),
        ({"mean": np.full(7, np.inf)}, "mean holds values"),
        ({"scale": np.zeros(7)}, "scale holds values"),
        ({"scale": np.ones(7, dtype=np.float32)}, "scale does not fit"),
        ({"b1": np.zeros(5, dtype=np.float32)}, "b1 does not fit"),
        ({"W3": np.zeros((3, 2), dtype=np.float32)}, "W3 does not fit"),
        ({"more": np.zeros(1, dtype=np.float32)}, "more does not fit"),
    ],
)
def test_arrays_that_do_not_belong_are_refused(saved, arrays, told):
    rewritten(saved, arrays)
    with pytest.raises(InputError, match=told):
        read_model(saved)


def test_other_files_are_told(saved, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_model(tmp_path / "none")
    with pytest.raises(InputError, match="not a readable"):
        read_model(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InputError, match="not a readable"):
        read_model(tmp_path / "empty")
    huge = json.dumps({"W1": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**62]}}).encode()
    (tmp_path / "huge").write_bytes(len(huge).to_bytes(8, "little") + huge)
    with pytest.raises(InputError, match="not a readable"):
        read_model(tmp_path / "huge")
    content = saved.read_bytes()
    (tmp_path / "latin").write_bytes(content.replace("Ü".encode(), b"\xff\xfe"))
    with pytest.raises(InputError, match="not a readable"):
        read_model(tmp_path / "latin")
    assert not is_model(tmp_path / "latin")
    (tmp_path / "cut").write_bytes(content[:-1])
    with pytest.raises(InputError, match="not a readable"):
        read_model(tmp_path / "cut")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_told_or_loads(saved, data):
    content = bytearray(saved.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = saved.with_name("damaged.safetensors")
    damaged.write_bytes(bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))]))
    outcome = predicted(damaged)
    if isinstance(outcome, str):
        assert outcome
        assert outcome.isprintable()
    else:
        best, probability = outcome
        assert best.shape == probability.shape == (3,)
        assert ((probability > 0) & (probability <= 1)).all()


def predicted(path):
    """What a model makes of some masked forms, or what is told of it: no other error may come out."""
    try:
        return read_model(path).predict(np.ones((3, 7), dtype=np.float32))
    except InputError as error:
        return str(error)
