"""One class over all attacks; then what is particular to each."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge
from torch import nn

from attacks import NAMES, WITH_PAIRS, WITHOUT_PAIRS, AttacksConfig, Knowledge, Own, draw_pairs, restore
from attacks.inversion import CHECK, _descend, fit_corrected
from attacks.ridge import JUDGED, fit_ridge, judged
from attacks.stitching import principal_components, rotate

QUICK = AttacksConfig(width=8, steps=60, descents=50, smoothness=(0.0, 0.01), matched=200)

#: Attacks that can undo any linear mask, and the one that asks it to be a rotation.
LINEAR = tuple(name for name in NAMES if name not in WITHOUT_PAIRS)

SIDE = 4
D = SIDE * SIDE


class Linear(nn.Module):
    """A mask that loses nothing: flattened pixels times a square matrix."""

    def __init__(self, matrix_PD):
        super().__init__()
        self.register_buffer("matrix", torch.from_numpy(matrix_PD))

    def forward(self, x_BCHW):
        return x_BCHW.permute(0, 2, 3, 1).flatten(1).to(self.matrix.dtype) @ self.matrix


class Independent(nn.Module):
    """Says the same whatever it is shown."""

    def forward(self, x_BCHW):
        return 0.0 * x_BCHW.flatten(1)[:, :D] + torch.linspace(-1, 1, D)


def some_images(count, seed, side=SIDE, channels=1):
    """Two shapes that overlap, in random strength, on some noise."""
    rng = np.random.default_rng(seed)
    shapes = np.random.default_rng(99).random((2, side, side, channels))
    images = np.tensordot(rng.random((count, 2)), shapes, 1) * 110 + rng.random((count, side, side, channels)) * 30
    return images.astype(np.uint8)


def pixels(images):
    return images / 255.0


def knows(name, k, mask, victims, encoder=None, seed=1):
    """What this attack needs, and no more, of `k` pairs."""
    images = some_images(k, seed)
    own = principal_components(some_images(300, 50), D) if name.startswith("stitch") else None
    pairless = name in WITHOUT_PAIRS
    return Knowledge(
        victims=mask(victims),
        images=images,
        masked=None if pairless else mask(images),
        encoder=encoder if name == "weights" else None,
        own=own,
    )


def left_of_a_linear_mask(name, matrix_PD, k):
    """The error of what an attack restores."""
    encoder, victims = Linear(matrix_PD), some_images(50, 2)

    def mask(images):
        return encoder(torch.from_numpy(pixels(images)).permute(0, 3, 1, 2)).numpy()

    restored = restore(name, knows(name, k, mask, victims, encoder), QUICK, seed=3)
    return np.square(restored - pixels(victims)).mean()


@pytest.mark.parametrize("name", NAMES)
class TestEveryAttack:
    def test_vectors_independent_of_the_images_give_no_better_than_the_mean_image(self, name):
        rng = np.random.default_rng(5)
        victims = some_images(300, 2)

        def mask(images):
            return rng.standard_normal((len(images), D)).astype(np.float32)

        knowledge = knows(name, 400, mask, victims, Independent())
        error = np.square(restore(name, knowledge, QUICK, seed=3) - pixels(victims)).mean()
        mean_image = np.square(pixels(knowledge.images).mean(axis=0) - pixels(victims)).mean()
        assert error > 0.97 * mean_image
        assert error < 3 * mean_image

    @pytest.mark.parametrize("k", [2, 3, 12])
    def test_constant_and_repeated_vectors_and_few_pairs_give_images_not_nan(self, name, k):
        victims = some_images(20, 2)
        for mask in (
            lambda images: np.full((len(images), D), 0.3, dtype=np.float32),
            lambda images: np.repeat(images.mean(axis=(1, 2, 3))[:, None] / 255, D, axis=1).astype(np.float32),
        ):
            restored = restore(name, knows(name, k, mask, victims, Independent()), QUICK, seed=3)
            assert restored.shape == victims.shape
            assert restored.dtype == np.float32
            assert restored.min() >= 0
            assert restored.max() <= 1

    def test_a_seed_repeats_and_the_input_is_left_alone(self, name):
        rng = np.random.default_rng(5)
        matrix = rng.standard_normal((D, D))

        def mask(images):
            return (np.tanh(pixels(images).reshape(len(images), -1) @ matrix)).astype(np.float32)

        victims = some_images(30, 2)
        knowledge = knows(name, 60, mask, victims, nn.Sequential(Linear(matrix.astype(np.float32)), nn.Tanh()))
        kept = knowledge.victims.copy(), knowledge.images.copy()
        first, second = (restore(name, knowledge, QUICK, seed=4) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(knowledge.victims, kept[0])
        np.testing.assert_array_equal(knowledge.images, kept[1])


@pytest.mark.parametrize("name", LINEAR)
class TestEveryAttackWithPairs:
    @pytest.mark.parametrize("k", [D + 1, 200])
    def test_a_linear_mask_is_undone(self, name, k):
        assert left_of_a_linear_mask(name, 3 * ortho_group.rvs(D, random_state=0), k) < 1e-8

    def test_constant_vectors_give_the_mean_of_the_attackers_images(self, name):
        victims = some_images(20, 2)

        def mask(images):
            return np.full((len(images), D), 0.3, dtype=np.float32)

        knowledge = knows(name, 100, mask, victims, Independent())
        smoothed = 0.01 if name == "weights" else 1e-5  # known weights may choose a smoother image
        expected = pixels(knowledge.images).mean(axis=0)
        assert np.square(restore(name, knowledge, QUICK, seed=3) - expected).mean() < smoothed**2

    def test_what_it_lacks_is_told(self, name):
        bare = Knowledge(victims=np.zeros((3, D), dtype=np.float32), images=some_images(5, 1))
        with pytest.raises(ValueError, match="needs"):
            restore(name, bare, QUICK, seed=1)


@pytest.mark.parametrize("name", [name for name in LINEAR if name != "stitch_orthogonal"])
@pytest.mark.parametrize("k", [D + 2, 200])  # of D + 1 pairs none can be left out without a direction
def test_a_linear_mask_that_is_no_rotation_is_undone(name, k):
    gaussian = np.random.default_rng(0).standard_normal((D, D))  # condition number 66
    assert left_of_a_linear_mask(name, gaussian, k) < 1e-8


class TestWhatIsNotKnowledge:
    GOOD = np.ones((5, D), dtype=np.float32)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"victims": np.zeros((0, D), dtype=np.float32)}, "victims"),
            ({"victims": np.full((4, D), np.nan, dtype=np.float32)}, "not finite"),
            ({"victims": np.ones((4, D + 1), dtype=np.float32)}, "both must come from one encoder"),
            ({"masked": np.ones((4, D), dtype=np.float32)}, "5 images and 4 masked vectors"),
            ({"images": some_images(1, 0), "masked": None}, "at least 2"),
            ({"images": some_images(5, 0).astype(float)}, "must be uint8"),
        ],
    )
    def test_it_is_told(self, change, told):
        values = {"victims": self.GOOD, "images": some_images(5, 0), "masked": self.GOOD} | change
        with pytest.raises(ValueError, match=told):
            Knowledge(**values)

    @pytest.mark.parametrize(
        ("numbers", "told"),
        [
            ((7, D), "encoder: takes no images of shape"),
            ((SIDE * SIDE, 1), rf"encoder: gives \(2, 1\) for 2 images, where victims have {D}"),
        ],
    )
    def test_an_encoder_of_something_else_is_told(self, numbers, told):
        wrong = nn.Sequential(nn.Flatten(), nn.Linear(*numbers))
        own = Own(name="x", encode=lambda images: wrong(torch.from_numpy(pixels(images)).float()), decode=lambda z: z)
        with pytest.raises(ValueError, match=told):
            Knowledge(victims=self.GOOD, images=some_images(5, 0), encoder=wrong)
        if numbers[0] == 7:
            with pytest.raises(ValueError, match=f"own {told}"):
                Knowledge(victims=self.GOOD, images=some_images(5, 0), own=own)

    def test_an_encoder_that_raises_another_error_is_told_too(self):
        class Particular(nn.Module):
            def forward(self, x_BCHW):
                raise ValueError("224 pixels")

        with pytest.raises(ValueError, match="encoder: takes no images of shape"):
            Knowledge(victims=self.GOOD, images=some_images(5, 0), encoder=Particular())

    def test_an_encoder_is_looked_at_without_being_changed(self):
        encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(D)).train()
        Knowledge(victims=self.GOOD, images=some_images(5, 0), encoder=encoder)
        assert encoder.training
        assert encoder[1].num_batches_tracked == 0
        np.testing.assert_array_equal(encoder[1].running_mean, np.zeros(D))

    @pytest.mark.parametrize("undone", [lambda z: np.full_like(z, np.nan), lambda z: z[:1]])
    def test_weights_that_undo_no_vector_are_told(self, undone):
        encoder = Linear(np.eye(D, dtype=np.float32))
        knowledge = knows("weights", 60, lambda images: pixels(images).reshape(-1, D), some_images(5, 2), encoder)
        with pytest.raises(ValueError, match="straighten: gives no finite vector for each of"):
            restore("weights", replace(knowledge, straighten=undone), QUICK, 0)

    def test_what_comes_out_not_finite_is_told(self):
        own = Own(
            name="x",
            encode=principal_components(some_images(40, 0), 4).encode,
            decode=lambda z: pixels(some_images(len(z), 0)) * np.nan,
        )
        knowledge = Knowledge(victims=self.GOOD, images=some_images(5, 0), masked=self.GOOD, own=own)
        with pytest.raises(ValueError, match="attack stitch_affine: leads to values that are not finite"):
            restore("stitch_affine", knowledge, QUICK, 0)

    def test_more_pairs_than_there_are(self):
        with pytest.raises(ValueError, match="11 pairs: there are 10"):
            draw_pairs(10, 11, seed=0)

    def test_smaller_choices_are_parts_of_larger_ones(self):
        np.testing.assert_array_equal(draw_pairs(100, 50, seed=3)[:20], draw_pairs(100, 20, seed=3))
        assert len(set(draw_pairs(100, 100, seed=3))) == 100

    def test_an_unknown_attack(self):
        with pytest.raises(ValueError, match="'magic': must be one of stitch_orthogonal"):
            restore("magic", Knowledge(victims=self.GOOD, images=some_images(5, 0)), QUICK, 0)

    def test_an_own_decoder_of_another_size(self):
        other = principal_components(some_images(40, 0, side=3), 4)
        own = Own(name="other", encode=principal_components(some_images(40, 0), 4).encode, decode=other.decode)
        knowledge = Knowledge(victims=self.GOOD, images=some_images(5, 0), masked=self.GOOD, own=own)
        with pytest.raises(ValueError, match="own decoder other gives images of shape"):
            restore("stitch_affine", knowledge, QUICK, 0)


class TestRidge:
    PENALTIES = (1e-6, 1e-4, 1e-2, 1.0)

    def data(self, k=60, d=12, noise=0.5):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((k, d)) * np.linspace(0.1, 2, d)
        return x, x @ rng.standard_normal((d, 5)) + noise * rng.standard_normal((k, 5))

    def test_it_is_scikit_learns(self):
        x, y = self.data()
        fitted = fit_ridge(x, y, self.PENALTIES)
        largest = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)[0] ** 2
        expected = Ridge(alpha=fitted.penalty * largest).fit(x, y).predict(x[:7])
        np.testing.assert_allclose(fitted.predict(x[:7]), expected, rtol=1e-8)

    def test_the_penalty_is_the_best_when_each_pair_is_really_left_out(self):
        x, y = self.data(k=16)
        largest = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)[0] ** 2

        def left_out(penalty):
            keep = ~np.eye(len(x), dtype=bool)
            fits = [Ridge(alpha=penalty * largest).fit(x[k], y[k]) for k in keep]
            return np.mean([np.square(f.predict(x[i : i + 1]) - y[i]).mean() for i, f in enumerate(fits)])

        assert fit_ridge(x, y, self.PENALTIES).penalty == min(self.PENALTIES, key=left_out)

    def test_fewer_pairs_than_dimensions_is_the_shortest_solution(self):
        x, y = self.data(k=5, d=12, noise=0)
        fitted = fit_ridge(x, y, (1e-12,))
        np.testing.assert_allclose(fitted.predict(x), y, atol=1e-8)


def test_rotation_is_procrustes():
    rng = np.random.default_rng(0)
    x, turn = rng.standard_normal((50, 6)), ortho_group.rvs(6, random_state=1)
    np.testing.assert_allclose(rotate(x, 0.3 * x @ turn + 2, x[:4]), 0.3 * x[:4] @ turn + 2)


def test_trained_attacks_beat_the_closed_form_on_a_mask_that_is_not_linear():
    matrix = np.random.default_rng(1).standard_normal((D, D)) * 2

    def mask(images):
        return np.sin(pixels(images).reshape(len(images), -1) @ matrix).astype(np.float32)

    victims = some_images(200, 2)
    config = AttacksConfig(width=16, steps=400)
    error = {
        name: np.square(restore(name, knows(name, 1500, mask, victims), config, 3) - pixels(victims)).mean()
        for name in ("ridge", "inversion", "stitch_affine", "stitch_mlp")
    }
    assert error["inversion"] < 0.9 * error["ridge"]
    assert error["stitch_mlp"] < 0.9 * error["stitch_affine"]


def test_a_network_that_is_better_by_chance_alone_is_dropped():
    """A linear mask under noise, 120 pairs: trained on 96 of them, nothing beats ridge regression on all."""
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((D, 20))

    def mask(images):
        clear = pixels(images).reshape(len(images), -1) @ matrix
        return (clear + rng.standard_normal(clear.shape)).astype(np.float32)

    victims = some_images(50, 2)
    knowledge = knows("inversion", 120, mask, victims)
    config = AttacksConfig(steps=400)
    np.testing.assert_array_equal(restore("inversion", knowledge, config, 3), restore("ridge", knowledge, config, 3))


def test_nothing_is_learned_where_too_few_pairs_are_held_back_to_tell():
    rng = np.random.default_rng(1)
    vectors, images = rng.standard_normal((100, 2)), rng.random((100, 12))
    config, base = AttacksConfig(steps=CHECK), fit_ridge(vectors[:99], images[:99], AttacksConfig().penalties)
    for seed in range(20):  # 19 held back: an accident never decides
        made = fit_corrected(vectors[:99], images[:99], config, seed)(vectors)
        np.testing.assert_array_equal(made, base.predict(vectors))


@pytest.mark.parametrize("side", [32, 48, 96, 128, 144, 192])
def test_the_judged_pixels_are_of_every_colour(side):
    colour = judged(np.tile([0.0, 1.0, 2.0], side * side)[None])
    assert colour.shape[1] <= JUDGED
    assert min(np.bincount(colour[0].astype(int), minlength=3)) > 100


def test_principal_components_of_few_large_images_need_no_matrix_of_pixels():
    public = np.random.default_rng(1).integers(0, 256, size=(30, 96, 96, 3), dtype=np.uint8)
    tracemalloc.start()
    own = principal_components(public, 404)
    assert tracemalloc.get_traced_memory()[1] < 5 * public.size * 8  # that matrix has 27,648 times its pixels
    tracemalloc.stop()
    np.testing.assert_allclose(own.decode(own.encode(public)), public / 255, atol=1e-5)


def test_known_weights_find_an_image_with_that_masked_vector():
    encoder = nn.Sequential(Linear(np.random.default_rng(1).standard_normal((D, D)).astype(np.float32)), nn.Tanh())
    truth = torch.from_numpy(pixels(some_images(5, 2)).astype(np.float32)).permute(0, 3, 1, 2)
    wanted = encoder(truth)
    begin = torch.full_like(truth, 0.3)
    found = _descend(encoder, begin, wanted, torch.ones(D), 0.0, 200)
    before, after = ((encoder(x) - wanted).square().mean() for x in (begin, found))
    assert after < 0.05 * before
    assert found.min() >= 0


def test_transport_undoes_a_mask_that_keeps_order_and_shape_of_the_cloud():
    """Skewed, unequal, independent factors: the one case in which no pair is needed."""

    def images(seed):
        factors = np.random.default_rng(seed).exponential(size=(400, 3)) * [60, 25, 8]
        basis = np.zeros((3, SIDE, SIDE, 1))
        basis[0, :2], basis[1, 2:, :2], basis[2, 2:, 2:] = 1, 1, 1
        return np.tensordot(factors, basis, 1).clip(0, 255).astype(np.uint8)

    victims = images(2)
    masked = pixels(victims).reshape(len(victims), -1) @ ortho_group.rvs(D, random_state=0)
    knowledge = Knowledge(victims=masked, images=images(1))
    mean_image = np.square(pixels(knowledge.images).mean(axis=0) - pixels(victims)).mean()
    for name in WITHOUT_PAIRS:
        error = np.square(restore(name, knowledge, QUICK, 3) - pixels(victims)).mean()
        assert error < 0.2 * mean_image, name


def scattered(count, seed):
    """Images of six independent skewed factors, so that hardly two are alike."""
    factors = np.random.default_rng(seed).exponential(size=(count, 6)) * [40, 32, 25, 20, 16, 12]
    basis = ortho_group.rvs(D, random_state=1)[:6].reshape(6, SIDE, SIDE, 1)
    return (100 + np.tensordot(factors, basis, 1)).clip(0, 255).astype(np.uint8)


class TestKnownPlaintexts:
    @pytest.mark.parametrize("stretch", [1.0, 2.0])
    def test_the_very_images_in_another_order_undo_a_mask_that_keeps_distances_more_or_less(self, stretch):
        victims = scattered(300, 2)
        scale = np.linspace(1, stretch, D)
        masked = pixels(victims).reshape(len(victims), -1) * scale @ ortho_group.rvs(D, random_state=0)
        shuffled = victims[np.random.default_rng(4).permutation(len(victims))]
        restored = restore("known_plaintexts", Knowledge(victims=masked, images=shuffled), QUICK, 3)
        assert np.square(restored - pixels(victims)).mean() < 1e-8

    def test_vectors_independent_of_the_images_tell_nothing(self):
        victims = scattered(300, 2)
        masked = np.random.default_rng(5).standard_normal((len(victims), D))
        restored = restore("known_plaintexts", Knowledge(victims=masked, images=victims[::-1]), QUICK, 3)
        assert np.square(restored - pixels(victims)).mean() > 0.9 * pixels(victims).var(axis=0).mean()

    def test_vectors_that_do_not_vary_give_the_mean_image(self):
        victims = scattered(30, 2)
        knowledge = Knowledge(victims=np.full((30, D), 0.3), images=victims[::-1])
        restored = restore("known_plaintexts", knowledge, QUICK, 3)
        np.testing.assert_allclose(restored, np.broadcast_to(pixels(victims).mean(axis=0), restored.shape), atol=1e-6)

    def test_other_images_than_the_victims_are_told(self):
        with pytest.raises(ValueError, match="2 victims and 3 images"):
            restore("known_plaintexts", Knowledge(victims=np.ones((2, D)), images=scattered(3, 1)), QUICK, 3)


def test_a_component_that_hardly_occurs_among_the_pairs_does_not_wreck_a_victim():
    """As the probability of a rare category: 1e-12 among the pairs, 1e-7 for one victim."""
    matrix = np.random.default_rng(1).standard_normal((D, D)) * 2

    def mask(images, rare):
        bent = np.sin(pixels(images).reshape(len(images), -1) @ matrix)
        return np.concatenate((bent, rare * np.random.default_rng(len(images)).random((len(images), 1))), axis=1)

    images, victims = some_images(1500, 1), some_images(200, 2)
    masked = mask(victims, 1e-11)
    knowledge = Knowledge(victims=masked, images=images, masked=mask(images, 1e-11))
    config = AttacksConfig(width=16, steps=400)
    usual = restore("inversion", knowledge, config, 3)
    masked[0, -1] = 1e-7
    rare = restore("inversion", replace(knowledge, victims=masked), config, 3)
    assert np.abs(rare[0] - usual[0]).max() < 0.05
    np.testing.assert_array_equal(rare[1:], usual[1:])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"names": ("magic",)}, "names = 'magic': must be one of"),
        ({"names": ("ridge", "ridge")}, "different names"),
        ({"pairs": (100, 10)}, "rising"),
        ({"pairs": (1,)}, "from 2"),
        ({"pairs": ()}, "pairs"),
        ({"target": 0.0}, "target = 0.0"),
        ({"steps": 0}, "steps = 0"),
        ({"penalties": (0.0,)}, "penalties"),
        ({"smoothness": ()}, "smoothness"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"draws": 0}, "draws = 0"),
        ({"victims": 10_001}, "victims = 10001: must be from 2 to 10000"),
    ],
)
def test_a_wrong_setting_is_told(values, told):
    with pytest.raises(ValueError, match=told):
        AttacksConfig(**values)


def test_every_attack_with_pairs_is_an_attack():
    assert set(WITH_PAIRS) < set(NAMES)


def test_fewer_pairs_than_dimensions_do_not_stitch_noise():
    victims, turn = some_images(300, 2), 3 * ortho_group.rvs(D, random_state=0)

    def mask(images):
        return (pixels(images).reshape(len(images), -1) @ turn).astype(np.float32)

    knowledge = knows("stitch_orthogonal", D // 2, mask, victims)
    error = np.square(restore("stitch_orthogonal", knowledge, QUICK, seed=3) - pixels(victims)).mean()
    assert error < np.square(pixels(knowledge.images).mean(axis=0) - pixels(victims)).mean()


def test_known_weights_straighten_what_they_can():
    """A mask that is bent by what its weights undo exactly: nothing is left to learn."""
    victims, turn = some_images(40, 2), ortho_group.rvs(D, random_state=0)

    class Bent(nn.Module):
        def forward(self, x_BCHW):
            return torch.sinh(4 * x_BCHW.permute(0, 2, 3, 1).flatten(1).double() @ torch.from_numpy(turn)).float()

    def mask(images):
        return Bent()(torch.from_numpy(pixels(images)).permute(0, 3, 1, 2)).numpy()

    settings = replace(QUICK, descents=1)
    for k in (60, D + 2):  # of the second, too few are left to choose anything on
        knowledge = knows("weights", k, mask, victims, Bent())
        bent, straight = (
            np.square(restore("weights", one, settings, seed=3) - pixels(victims)).mean()
            for one in (knowledge, replace(knowledge, straighten=lambda z: np.arcsinh(z) / 4))
        )
        assert straight < 1e-8 < bent
