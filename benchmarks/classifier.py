"""The neural network at batch 4, and AdaBoost: ours beside a `DataLoader` loop, an eager loop and scikit-learn."""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.ensemble import AdaBoostClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.timing import Contender, section, write_page
from classifiers import MLP
from classifiers.boosting import build_adaboost
from classifiers.config import BoostingConfig

VECTORS, LENGTH, CLASSES = 2000, 404, 4


def clouds(count=VECTORS, classes=CLASSES):
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=count)
    shift = 0.3 * rng.standard_normal((classes, LENGTH))
    return (rng.standard_normal((count, LENGTH)) + shift[y]).astype(np.float32), y


class PlainClassifier:
    """Three linear layers, plain Adam, `.item()` each step."""

    def __init__(self, batches):
        self.net = nn.Sequential(
            nn.Linear(LENGTH, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, CLASSES)
        )
        self.adam, self.loss, self.batches = torch.optim.Adam(self.net.parameters()), nn.CrossEntropyLoss(), batches

    def run(self):
        count, total = 0, 0.0
        for x, y in self.batches():
            self.adam.zero_grad()
            loss = self.loss(self.net(x), y)
            loss.backward()
            self.adam.step()
            total += loss.item()
            count += len(x)
        return count


def network() -> str:
    x, y = clouds()
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    loader = DataLoader(TensorDataset(tx, ty), batch_size=4, shuffle=True)

    def in_memory():
        for index in torch.randperm(len(tx)).split(4):
            yield tx[index], ty[index]

    fit = MLP(epochs=1, random_state=0).fit
    contenders = [
        Contender("DataLoader loop", PlainClassifier(lambda: loader).run),
        Contender("in memory, eager", PlainClassifier(in_memory).run),
        Contender("ours", lambda: len(fit(x, y).classes_) and VECTORS, flops=3 * 2 * (404 * 256 + 256 * 128 + 128 * 4)),
    ]
    targets = {("ours", "DataLoader loop"): 4.0, ("ours", "in memory, eager"): 2.0}
    return section("Neural network, batch 4, one epoch", "vectors", contenders, targets, "404 inputs, four classes.")


def boosting(count: int, classes: int, rounds: int) -> str:
    x, y = clouds(count, classes)
    theirs = AdaBoostClassifier(n_estimators=rounds, random_state=0)
    contenders = [
        Contender("scikit-learn", lambda: len(theirs.fit(x, y).estimators_)),
        Contender("ours", lambda: len(build_adaboost(BoostingConfig(estimators=rounds), 0).fit(x, y).estimators_)),
    ]
    ours = build_adaboost(BoostingConfig(estimators=rounds), 0).fit(x, y)
    apart = np.abs(ours.estimator_errors_ - theirs.fit(x, y).estimator_errors_).max()
    note = f"{count:,} x {LENGTH}, {classes} classes, {rounds} stumps; estimator errors differ by {apart:.1e} at most."
    return section(f"AdaBoost, {count:,} vectors", "stumps", contenders, {("ours", "scikit-learn"): 5.0}, note)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="AdaBoost on 60,000 vectors of ten classes, alone")
    if parser.parse_args().long:
        print(write_page("classifier", [boosting(60_000, 10, 100)], "python -m benchmarks.classifier --long"))
    else:
        print(write_page("classifier", [network(), boosting(2000, CLASSES, 100)]))
