"""Many networks in one program: each ends as its own fit leaves it."""

import numpy as np
import pytest
import torch

from classifiers import MLP
from classifiers.together import _Nets, _Padded, fit_together, memory

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def problem(rng, count, classes, length=12):
    y = rng.permutation(np.arange(count) % classes)
    return (rng.standard_normal((count, length)) + 2 * np.eye(classes, length)[y]).astype(np.float32), y


def networks(count, **settings):
    return [MLP(**{"hidden": (10, 7), "epochs": 4} | settings, random_state=seed) for seed in range(count)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("average", [False, True])
def test_each_ends_as_its_own_fit_leaves_it(device, average):
    """Other numbers of vectors and classes, a batch that is not full, one network without a validation part."""
    rng = np.random.default_rng(0)
    parts = [
        (problem(rng, count, classes), problem(rng, held, classes) if held else None)
        for count, classes, held in ((150, 3, 30), (203, 2, 20), (201, 4, 41), (150, 3, 0), (4, 2, 7))
    ]
    together, alone = networks(len(parts), average=average), networks(len(parts), average=average)
    fit_together(together, parts, device)
    test, _ = problem(rng, 50, 2)
    for a, b, (train, held) in zip(together, alone, parts, strict=True):
        b.fit(*train, *(held or ()))
        assert a.best_epoch_ == b.best_epoch_
        assert a.classes_.tolist() == b.classes_.tolist()
        assert a.state().keys() == b.state().keys()
        for name, array in b.state().items():
            np.testing.assert_allclose(a.state()[name], array, atol=2e-4)
        for mine, theirs in zip(a.history_, b.history_, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-4)
        np.testing.assert_allclose(a.predict_proba(test), b.predict_proba(test), atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_a_seed_repeats(device):
    def weights():
        rng = np.random.default_rng(1)
        fitted = networks(3)
        fit_together(fitted, [(problem(rng, 130, 3), problem(rng, 20, 3)) for _ in fitted], device)
        return [array for network in fitted for array in network.state().values()]

    assert all(np.array_equal(a, b) for a, b in zip(weights(), weights(), strict=True))


def test_networks_that_differ_are_told():
    rng = np.random.default_rng(2)
    parts = [(problem(rng, 20, 2), None)] * 2
    with pytest.raises(ValueError, match="must agree in hidden"):
        fit_together([*networks(1), *networks(1, epochs=9)], parts)


def test_memory_counts_what_the_tensors_take():
    rng = np.random.default_rng(3)
    (network,) = networks(1, hidden=(40, 20))
    begun = network._begin(*problem(rng, 100, 3), None, None)
    nets, vectors = _Nets([network._net], torch.device("cpu")), _Padded([begun[:2]], 3, torch.device("cpu"))
    taken = [
        vectors.x,
        vectors.target,
        nets.parameters,
        nets.gradient,
        *nets.moments,
        *(nets.parameters.clone() for _ in range(3)),
    ]
    counted = memory(count=100, length=12, hidden=(40, 20), classes=3)
    assert counted == pytest.approx(sum(4 * tensor.numel() for tensor in taken), rel=0.01)
