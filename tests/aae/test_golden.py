"""The loss curve of the default training, recorded: `python -m tests.aae.test_golden` records it again."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from aae.config import AutoencoderConfig, TrainingConfig
from aae.training import LOSSES, TrainingState, train_epochs

GOLDEN = Path(__file__).with_name("golden.json")


def curve():
    """Three epochs of the default autoencoder on squares of a photograph."""
    photo = load_sample_image("china.jpg")[:416, :640]
    squares = photo.reshape(13, 32, 20, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
    order = np.random.default_rng(0).permutation(len(squares))
    held_out, train = np.split(squares[order], [60])
    state = TrainingState(AutoencoderConfig(training=TrainingConfig(epochs=3)), seed=1)
    keys = (*LOSSES, "held_out_mse", "largest_probability")
    return [{key: metrics[key] for key in keys} for metrics in train_epochs(state, train, held_out)]


def test_the_default_loses_as_it_did_when_this_was_recorded():
    """Other processors round otherwise, and a hundred steps carry that on: a hundredth is far below any real change."""
    for epoch, golden in zip(curve(), json.loads(GOLDEN.read_text()), strict=True):
        assert epoch == pytest.approx(golden, rel=0.01)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(curve(), indent=1) + "\n")
