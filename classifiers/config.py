"""Settings of the classifiers, each checked when built. Errors are `ValueError`: key, value, way out."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Every classifier, in the order of the tables.
NAMES = ("mlp", "random_forest", "random_forest_onehot", "adaboost")


def _require(holds: bool, key: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{key} = {value!r}: must be {wanted}")


@dataclass(frozen=True, kw_only=True)
class MlpConfig:
    """The neural network: three linear layers (paper, Fig 3; its S8 Table is not in the text)."""

    hidden: tuple[int, int] = (256, 128)
    """Sizes of the two hidden layers; ours, the paper calls its own "chosen arbitrarily"."""
    epochs: int = 15
    """Passes over the training part; the weights of the best epoch on the validation part are kept."""
    batch_size: int = 4
    """Vectors a step (paper: 4)."""
    learning_rate: float = 1e-3
    """Of Adam (paper: 0.001, with its default betas)."""
    average: bool = False
    """Whether an epoch's weights are their mean over the ends of all epochs so far, and not those it ended with; the
    paper does not say which it kept."""

    def __post_init__(self) -> None:
        _require(
            len(self.hidden) == 2 and all(1 <= w <= 65_536 for w in self.hidden),
            "hidden",
            self.hidden,
            "two whole numbers from 1 to 65536",
        )
        _require(1 <= self.epochs <= 100_000, "epochs", self.epochs, "from 1 to 100000")
        _require(1 <= self.batch_size <= 65_536, "batch_size", self.batch_size, "from 1 to 65536")
        _require(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "above 0, up to 1")


@dataclass(frozen=True, kw_only=True)
class ForestConfig:
    """Random Forest, otherwise with scikit-learn's defaults, as in the paper."""

    estimators: int = 100
    """Trees (paper: 100)."""

    def __post_init__(self) -> None:
        _require(1 <= self.estimators <= 100_000, "estimators", self.estimators, "from 1 to 100000")


@dataclass(frozen=True, kw_only=True)
class BoostingConfig:
    """AdaBoost, otherwise with scikit-learn's defaults; SAMME, since SAMME.R of the paper's time is gone."""

    estimators: int = 100
    """Stumps (paper: 100)."""

    def __post_init__(self) -> None:
        _require(1 <= self.estimators <= 100_000, "estimators", self.estimators, "from 1 to 100000")


@dataclass(frozen=True, kw_only=True)
class ClassifiersConfig:
    """Which classifiers run, and their settings."""

    names: tuple[str, ...] = NAMES
    """Any of mlp, random_forest, random_forest_onehot and adaboost."""
    mlp: MlpConfig = field(default_factory=MlpConfig)
    """The neural network."""
    random_forest: ForestConfig = field(default_factory=ForestConfig)
    """Random Forest, for class labels and for one-hot targets."""
    adaboost: BoostingConfig = field(default_factory=BoostingConfig)
    """AdaBoost."""

    def __post_init__(self) -> None:
        for name in self.names:
            _require(name in NAMES, "names", name, "one of " + ", ".join(NAMES))
        _require(
            len(self.names) >= 1 and len(set(self.names)) == len(self.names),
            "names",
            self.names,
            "one or more names, each once",
        )
