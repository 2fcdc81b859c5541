"""Rows of the tables in docs/autoencoder.md: `python -m benchmarks.priors DIR ... [--against DIR ...] [--use DATA]`.

Each DIR holds what `study train` left. With `--use`, a classifier learns from masked CIFAR-100 of the training
part (30 draws, protocol `shared`) and is judged on its validation part, with `--average` by the mean of its weights
over epochs; `--against`: the same seeds trained otherwise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from aae.keys import load_key
from classifiers import NAMES, ClassifiersConfig
from classifiers.config import MlpConfig
from study import datasets, objectives
from study.aggregate import describe
from study.config import DataConfig, SearchConfig, StudyConfig, TaskConfig
from study.trial import read_result
from study.views.tables import mean_and_interval, signed

#: Heading -> how it is read from the last epoch.
COLUMNS = {
    "MSE": "{held_out_mse:.5f}",
    "largest mean": "{mean_largest:.3f}",
    "deviations": "{deviation_smallest:.2f} to {deviation_largest:.2f}",
    "rank (sample)": "{effective_rank:.0f} ({effective_rank_sample:.0f})",
    "correlation (sample)": "{largest_correlation:.2f} ({largest_correlation_sample:.2f})",
    "marginals (sample)": "{marginal_distance:.3f} ({marginal_distance_sample:.3f})",
    "used": "{categories_used:.0f}",
    "`p`": "{largest_probability:.2f}",
    "`fresh`": "{fresh_gaussian:.2f}, {fresh_categorical:.2f}",
}


def use(
    folders: list[Path], data_dir: Path, draws: int, classifier: str = "mlp", *, average: bool = False
) -> pd.DataFrame:
    """Validation accuracy, folders down, draws across under their numbers of classes."""
    search = SearchConfig(trials=1, draws=draws)
    config = StudyConfig(data=DataConfig(), tasks=(TaskConfig(data="cifar100"),), search=search)
    chosen = objectives.validation_draws(config, {"cifar100": datasets.load("cifar100", data_dir)})
    settings = ClassifiersConfig(mlp=MlpConfig(average=average))
    rows = {}
    for folder in folders:
        key = load_key(folder / "encoder.safetensors", "encoder")
        images = chosen[0].images
        bench = objectives.Bench(
            train=images, held_out=images, draws=chosen, classifiers=settings, classifier=classifier
        )
        rows[str(folder)] = objectives.accuracies(key.module, key.latent, bench)
    return pd.DataFrame(rows, index=[len(draw.classes) for draw in chosen]).T


def main(
    folders: list[Path], against: list[Path], data_dir: Path | None, draws: int, classifier: str, *, average: bool
) -> None:
    """Print the table, and the paired difference."""
    grid = use([*folders, *against], data_dir, draws, classifier, average=average) if data_dir else None
    print("| trained | " + " | ".join(COLUMNS) + (" | accuracy; 2, 3, 4 classes |" if data_dir else " |"))
    print("|" + "---|" * (len(COLUMNS) + 1 + bool(data_dir)))
    for folder in [*folders, *against]:
        last = read_result(folder)["history"][-1]
        cells = [form.format(**last) for form in COLUMNS.values()]
        if grid is not None:
            row = grid.loc[str(folder)]
            cells.append(f"{row.mean():.3f}; " + ", ".join(f"{mean:.3f}" for mean in row.groupby(level=0).mean()))
        print(f"| {folder.name} | " + " | ".join(cells) + " |")
    if grid is not None and against:
        ours, theirs = (grid.loc[[str(f) for f in some]].to_numpy() for some in (folders, against))
        difference = describe(pd.DataFrame(ours - theirs), seed=0)
        print(f"\nAccuracy: {mean_and_interval(describe(pd.DataFrame(ours), seed=0))}, ", end="")
        print(f"less the others', paired by seed and draw: {signed(difference)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="what `study train` left")
    parser.add_argument("--against", type=Path, nargs="+", default=[], metavar="DIR", help="the same seeds otherwise")
    parser.add_argument("--use", type=Path, metavar="DATA-DIR", help="judge the use on masked CIFAR-100 from there")
    parser.add_argument("--draws", type=int, default=10, help="draws of 2, 3 and 4 classes each")
    parser.add_argument("--classifier", choices=NAMES, default="mlp", help="who learns (default: the neural network)")
    parser.add_argument("--average", action="store_true", help="of the network: classifiers.mlp.average")
    options = parser.parse_args()
    main(options.folders, options.against, options.use, options.draws, options.classifier, average=options.average)
