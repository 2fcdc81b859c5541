"""The autoencoder as a scikit-learn transformer: `fit` on public images, `transform` what must not be seen.

Images come as uint8 (N, H, W, C) or (N, H, W), or flat, (N, F), as scikit-learn hands them on: flat vectors of any
numbers are scaled to the range seen in `fit`, rounded to 256 levels and laid out as a square grey picture.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from aae.config import AutoencoderConfig, LatentConfig, NetworkConfig, Recipe, TrainingConfig
from aae.masking import mask, unmask
from aae.networks import Autoencoder
from aae.training import TrainingState, train_epochs

Images = NDArray[np.uint8]


class Masker(TransformerMixin, BaseEstimator):
    """Mask images by the encoder of an adversarial autoencoder trained on others (paper, section "Data masking").

    Args:
        gaussian: dimensions of the Gaussian part.
        categorical: dimensions of the categorical part, or 0.
        epochs: passes over the images of `fit`.
        batch_size: images a step; fewer where there are fewer images.
        recipe: of the training, as `TrainingConfig.recipe`.
        widths: channels of the encoder's convolutions, each of which halves the side of the images; unset, they follow
            from it, as `NetworkConfig.widths`.
        random_state: int, `RandomState` or None.

    Attributes:
        autoencoder_: the trained networks; whoever holds its decoder can restore.
        history_: the metrics of each epoch, those of `train_epochs`; held out is the first tenth of the images;
            of fewer than ten the first, which is trained on too.
        n_features_in_: numbers in one image.

    Raises:
        ValueError: images of another shape or kind than described above, or fewer than two.
    """

    def __init__(
        self,
        gaussian: int = 384,
        categorical: int = 20,
        epochs: int = 20,
        batch_size: int = 16,
        recipe: Recipe = "two_phase",
        widths: tuple[int, ...] = (),
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.gaussian = gaussian
        self.categorical = categorical
        self.epochs = epochs
        self.batch_size = batch_size
        self.recipe = recipe
        self.widths = widths
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Train encoder and decoder on images; `y` is not used."""
        images = self._images(X, reset=True)
        if self.batch_size < 2:
            raise ValueError(f"batch_size = {self.batch_size}: must be 2 or more")
        if len(images) < 2:
            raise ValueError(f"{len(images)} sample: batch normalisation needs at least 2, training many more")
        held_out, train = images[: len(images) // 10 or 1], images[len(images) // 10 :]
        self._config = AutoencoderConfig(
            latent=LatentConfig(gaussian=self.gaussian, categorical=self.categorical),
            network=NetworkConfig(image_size=images.shape[1], channels=images.shape[3], widths=tuple(self.widths)),
            training=TrainingConfig(
                recipe=self.recipe, epochs=self.epochs, batch_size=min(self.batch_size, max(2, len(train)))
            ),
        )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        state = TrainingState(self._config, seed)
        self.history_ = list(train_epochs(state, train, held_out))
        self.autoencoder_: Autoencoder = state.nets.eval().requires_grad_(requires_grad=False)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Mask: (N, gaussian + categorical)."""
        check_is_fitted(self)
        return mask(self.autoencoder_.encoder, self._images(X, reset=False))

    def inverse_transform(self, X: ArrayLike) -> NDArray[Any]:
        """Restore by the matching decoder: images as they came to `fit`; flat ones are floats in the range they had."""
        check_is_fitted(self)
        masked = np.ascontiguousarray(X, dtype=np.float32)
        if masked.ndim != 2 or masked.shape[1] != self._n_features_out:
            raise ValueError(f"masked forms of shape {masked.shape}: must be (N, {self._n_features_out})")
        restored = unmask(self.autoencoder_.decoder, masked)
        if self._flat is None:
            images: Images = np.rint(restored * 255).astype(np.uint8)
            return images[..., 0] if self._shape[2] == 0 else images
        low, span = self._flat
        return restored.reshape(len(restored), -1)[:, : self.n_features_in_] * span + low

    @property
    def _n_features_out(self) -> int:
        return self._config.latent.length

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """`gaussian0`, ..., `categorical0`, ..."""
        check_is_fitted(self)
        latent = self._config.latent
        names = [f"gaussian{i}" for i in range(latent.gaussian)]
        names += [f"categorical{i}" for i in range(latent.categorical)]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # a masked form is float32, by definition
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "autoencoder_")

    def _images(self, X: Any, *, reset: bool) -> Images:
        given = np.asarray(X) if not hasattr(X, "dtype") or getattr(X, "ndim", 0) > 2 else X
        if getattr(given, "ndim", 2) in (3, 4):
            return self._pictures(np.asarray(given), reset=reset)
        flat_NF = validate_data(self, X, dtype=np.float64, reset=reset)
        if reset:
            low = flat_NF.min(axis=0)
            span = flat_NF.max(axis=0) - low
            self._flat: tuple[NDArray[Any], NDArray[Any]] | None = (low, np.where(span > 0, span, 1.0))
            side = math.ceil(math.sqrt(flat_NF.shape[1]))
            step = 2 ** (len(self.widths) or max(2, side.bit_length() - 3))  # as many halvings as `NetworkConfig` makes
            self._side = step * math.ceil(side / step)
        elif self._flat is None:
            raise ValueError(f"images of shape {flat_NF.shape}: must be {('N', *self._shape)}, as in fit")
        assert self._flat is not None
        low, span = self._flat
        levels = np.rint(((flat_NF - low) / span).clip(0, 1) * 255).astype(np.uint8)
        square = np.zeros((len(levels), self._side**2), dtype=np.uint8)
        square[:, : levels.shape[1]] = levels
        return square.reshape(-1, self._side, self._side, 1)

    def _pictures(self, images: NDArray[Any], *, reset: bool) -> Images:
        shape = (*images.shape[1:3], images.shape[3] if images.ndim == 4 else 0)
        if images.dtype != np.uint8 or shape[0] != shape[1] or shape[2] not in (0, 1, 3) or not len(images):
            raise ValueError(
                f"images of type {images.dtype} and shape {images.shape}: must be uint8, square, (N, H, W) or "
                f"(N, H, W, 1 or 3), at least one"
            )
        if reset:
            self._shape, self._flat = shape, None
            self.n_features_in_ = math.prod(images.shape[1:])
        elif self._flat is not None or shape != self._shape:
            raise ValueError(f"images of shape {images.shape}: must be as in fit")
        return np.ascontiguousarray(images if images.ndim == 4 else images[..., None])
