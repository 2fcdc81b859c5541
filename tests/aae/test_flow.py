"""The flow starts as the identity, is undone exactly, and makes vectors normal that are only white."""

import pytest
import torch

from aae.flow import Flow, fit
from aae.priors import judge


def vectors(count, dimensions=6, seed=0):
    """White, and each stretched by a factor of its own that its first half tells: far from normal."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, dimensions, generator=generator)
    z[:, dimensions // 2 :] *= (z[:, :1]).exp()
    z = z - z.mean(dim=0)
    variance, basis = torch.linalg.eigh(torch.cov(z.T, correction=0))
    return z @ (basis / variance.sqrt()) @ basis.T


@pytest.mark.parametrize(("dimensions", "couplings"), [(6, 4), (7, 3), (2, 1), (1, 4), (6, 0)])
def test_it_starts_as_the_identity(dimensions, couplings):
    z = torch.randn(50, dimensions, generator=torch.Generator().manual_seed(1))
    flow = Flow(dimensions, couplings)
    assert torch.equal(flow(z), z)
    assert torch.equal(flow.undo(z), z)


@pytest.fixture(scope="module")
def flow():
    flow = Flow(6, 4)
    fit(flow, [vectors(20_000)], torch.Generator().manual_seed(0))
    return flow


class TestFitted:
    def test_vectors_it_has_not_seen_are_normal_and_come_back(self, flow):
        learned, others = vectors(20_000), vectors(4000, seed=1)
        with torch.no_grad():
            made = [flow(z) for z in (learned, others)]
            torch.testing.assert_close(flow.undo(made[1]), others, atol=1e-4, rtol=1e-4)
        assert judge(learned.numpy(), others.numpy(), "gaussian") > 0.6
        assert judge(*(z.numpy() for z in made), "gaussian") < 0.56

    @torch.no_grad()
    def test_what_it_makes_is_white(self, flow):
        z = flow(vectors(20_000)).double()
        torch.testing.assert_close(torch.cov(z.T, correction=0), torch.eye(6).double(), atol=1e-4, rtol=0)


def test_it_repeats():
    one, other = Flow(6, 4), Flow(6, 4)
    for each in (one, other):
        fit(each, [vectors(2000)], torch.Generator().manual_seed(0))
    assert one.surprise(vectors(2000)) < Flow(6, 4).surprise(vectors(2000))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_mirrored_views_are_learned_too():
    one, other = vectors(2000), -vectors(2000, seed=1) + 1
    flow = Flow(6, 4)
    before = [flow.surprise(z).item() for z in (one, other)]
    fit(flow, [one, other], torch.Generator().manual_seed(0))
    assert all(flow.surprise(z).item() < value for z, value in zip((one, other), before, strict=True))


def test_too_few_vectors_leave_it_as_it_was():
    flow, z = Flow(6, 4), vectors(999)
    fit(flow, [z], torch.Generator().manual_seed(0))
    assert torch.equal(flow(z), z)


def test_what_was_learned_by_chance_is_not_kept():
    """Normal vectors of many dimensions: a flow only gets worse on those that it does not see."""
    z = torch.randn(1500, 150, generator=torch.Generator().manual_seed(2))
    flow = Flow(150, 4)
    fit(flow, [z], torch.Generator().manual_seed(0))
    assert flow.surprise(z[::10]) <= Flow(150, 4).surprise(z[::10])
