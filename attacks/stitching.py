"""Stitching: a map from the victim's masked vectors to the attacker's own latents, then the attacker's own decoder.

Shapes: K pairs, N victims, D components of the victim's vectors, E of the attacker's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from attacks.config import AttacksConfig
from attacks.inversion import fit_corrected
from attacks.knowledge import Knowledge, Own, Restored
from attacks.principal import principal
from attacks.ridge import fit_ridge

Floats = NDArray[np.float64]


def orthogonal(knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Rung 2: a shift, one scale and an orthogonal map (Procrustes); between unequal sizes, a partial one."""
    vectors_KD, latents_KE, own = _both(knowledge, "stitch_orthogonal")
    return _decoded(own, rotate(vectors_KD, latents_KE, knowledge.victims), knowledge)


def affine(knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Rung 2: an affine map by ridge regression."""
    vectors_KD, latents_KE, own = _both(knowledge, "stitch_affine")
    return _decoded(own, fit_ridge(vectors_KD, latents_KE, config.penalties).predict(knowledge.victims), knowledge)


def mlp(knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Rung 2: a small network, as a correction of the affine map."""
    vectors_KD, latents_KE, own = _both(knowledge, "stitch_mlp")
    predict = fit_corrected(vectors_KD, latents_KE, config, seed)
    return _decoded(own, predict(knowledge.victims), knowledge)


def rotate(from_KD: Floats, to_KE: Floats, vectors_ND: NDArray[np.floating]) -> Floats:
    """Move vectors by the shift, scale and (partial) rotation that bring `from` nearest to `to`.

    Vectors that do not vary all become the mean of `to`.
    """
    mean_D, mean_E = from_KD.mean(axis=0), to_KE.mean(axis=0)
    centred_KD = from_KD - mean_D
    u_DR, s_R, vt_RE = linalg.svd(centred_KD.T @ (to_KE - mean_E), full_matrices=False)
    known_R = s_R > 1e-9 * s_R.max(
        initial=0
    )  # fewer pairs than dimensions say nothing of the others: turning those adds noise
    turn_DE = u_DR[:, known_R] @ vt_RE[known_R]
    spread = np.square(centred_KD @ turn_DE).sum()
    scale = s_R.sum() / spread if spread > 1e-12 * max(1.0, float(np.square(from_KD).sum())) else 0.0
    return scale * (vectors_ND - mean_D) @ turn_DE + mean_E


def _both(knowledge: Knowledge, attack: str) -> tuple[Floats, Floats, Own]:
    if knowledge.own is None:
        raise ValueError(f"attack {attack}: needs an autoencoder of the attacker's own: give one")
    vectors_KD, _ = knowledge.pairs(attack)
    latents_KE = knowledge.own.encode(knowledge.images).astype(np.float64)
    if len(latents_KE) != len(vectors_KD) or not np.isfinite(latents_KE).all():
        raise ValueError(f"attack {attack}: own encoder {knowledge.own.name} gives no finite vector for each image")
    return vectors_KD, latents_KE, knowledge.own


def _decoded(own: Own, latents_NE: Floats, knowledge: Knowledge) -> Restored:
    restored = own.decode(latents_NE.astype(np.float32))
    if restored.shape[1:] != knowledge.images.shape[1:]:
        raise ValueError(
            f"own decoder {own.name} gives images of shape {restored.shape[1:]}, not {knowledge.images.shape[1:]}"
        )
    return restored.clip(0, 1).astype(np.float32)


def principal_components(public: NDArray[np.uint8], length: int) -> Own:
    """An autoencoder anyone has: the leading principal components of public images, `length` of them at most."""
    mean_P, spread_PE, _ = principal(public.reshape(len(public), -1) / 255.0, length)
    basis_PE = spread_PE / linalg.norm(spread_PE, axis=0)
    shape = public.shape[1:]

    def encode(images: NDArray[np.uint8]) -> Floats:
        return (images.reshape(len(images), -1) / 255.0 - mean_P) @ basis_PE

    def decode(latents_NE: NDArray[np.floating]) -> Restored:
        return (latents_NE @ basis_PE.T + mean_P).reshape(-1, *shape).astype(np.float32)

    return Own(name="principal components", encode=encode, decode=decode)
