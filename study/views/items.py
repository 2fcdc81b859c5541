"""Where a report holds each figure, table and equation of the paper, and the paper's settings beside the study's."""

from __future__ import annotations

import pandas as pd

from study.config import LatentPoint, StudyConfig
from study.views.page import Section

#: Each item of the paper, and the section that has its counterpart, or why none has.
ITEMS = (
    ("Fig 1: masked forms", "In plain words"),
    ("Figs 2 to 4: drawings of the networks", "nothing measured; sizes and layers: docs/protocol.md"),
    ("Figs 5, 6 and 7: losses of the autoencoders", "The autoencoders"),
    ("Eqs 1 to 12: errors of matched and unmatched pairs", "Matched and unmatched pairs"),
    ("Fig 8, S4 to S6 Figs: pairs on photographs", "Matched and unmatched pairs, one picture for each configuration"),
    ("Fig 9, S1 to S3 Figs: pairs on test patterns", "Matched and unmatched pairs, likewise, on patterns of our own"),
    ("Figs 10 and 11: training of the classifier", "Classification of masked images: protocol `paper`"),
    ("Tables 1 and 2: accuracy, precision, recall", "Classification of masked images: protocol `paper`"),
    (
        "S5 to S7 Tables: the same draw by draw, not in the paper's text",
        "Classification of masked images: protocol `paper`, ours alone",
    ),
    ("S1 to S4 and S8 Tables, S1 File: layers, test patterns", "not in the paper's text; ours: docs/protocol.md"),
    ("What its text concludes", "What the paper concludes, and whether it holds here"),
)


def section(config: StudyConfig) -> Section:
    """The two tables, for a study of this configuration."""
    return Section(
        "The paper, item by item",
        ["What neither table names of the choices made here stands in docs/protocol.md."],
        [
            ("Where its figures, tables and equations are", pd.DataFrame(ITEMS, columns=["the paper", "here"])),
            ("Its settings", pd.DataFrame(_settings(config), columns=["setting", "the paper", "here"])),
        ],
    )


def _name(point: LatentPoint) -> str:
    return f"{point.gaussian}+{point.categorical}" + (f", recipe {point.recipe}" if point.recipe else "")


def _settings(config: StudyConfig) -> list[tuple[str, str, str]]:
    training, learned, data = config.training, config.classifiers, config.data
    size, betas = config.network.image_size, ", ".join(map(str, training.betas))
    latents = dict.fromkeys(f"{point.gaussian} + {point.categorical}" for point in config.latents)
    tasks = "; ".join(f"{task.data}: {', '.join(map(str, task.classes))}" for task in config.tasks)
    used = f"{data.train_images:,} images" if data.train_images else "the training part"
    others = [f"of {_name(point)} {point.instances}" for point in config.latents if point.instances]
    instances = "; ".join([str(config.instances), *others])
    split = "training and test part merged, 8:2" if "paper" in config.protocols else "not studied"
    searched = {dimension.key for dimension in config.search.space}
    built = [config.autoencoder(point) for point in config.latents]
    contrastive = "training.contrastive_weight" in searched or any(one.training.contrastive_weight for one in built)
    shares = ["searched"] if "network.branch" in searched else []
    shares += dict.fromkeys(f"{one.network.branch:.0%}" for one in built if one.network.branch)
    return [
        (
            "set A, without labels",
            "CIFAR-10, 60,000 images, 6,000 a class",
            f"{data.autoencoder}, {used}, {data.held_out:,} of them kept for validation",
        ),
        (
            "set B, with labels",
            "CIFAR-100, 100 classes of 600 images, 50,000 to train and 10,000 to test; MNIST, 60,000 and 10,000",
            f"{', '.join(task.data for task in config.tasks)}; numbers of images are under Manifest",
        ),
        ("size of an image", "32x32x3", f"{size}x{size}x{config.network.channels}"),
        ("latent, Gaussian + categorical", "384 + 20", ", ".join(latents)),
        ("instances of the autoencoder", "4", instances),
        (
            "encoder",
            "three convolutions; over 400 thousand parameters",
            f"convolutions to {', '.join(map(str, config.network.widths))} channels"
            + (f"; as many again for a share of the Gaussian part ({', '.join(shares)})" if shares else ""),
        ),
        (
            "losses of the autoencoder",
            "mean squared error, binary cross-entropy",
            f"the same kinds{', and a contrastive loss' if contrastive else ''}",
        ),
        (
            "T and V, for errors of pairs",
            "40,000 and 10,000 images, of which set is not stated",
            f"of {data.autoencoder}, and of each labelled set what trains and validates the network",
        ),
        (
            "optimiser of the autoencoder",
            "Adam, 0.001, betas 0.9, 0.999",
            f"Adam, {training.learning_rate}, betas {betas}",
        ),
        ("batch of the autoencoder", "16", str(training.batch_size)),
        ("epochs of the autoencoder", "not stated", str(training.epochs)),
        (
            "classes, and draws of them",
            "CIFAR-100: 2, 3, 4, ten draws each; MNIST: 10",
            f"{tasks}; draws: {config.draws}",
        ),
        (
            "validation part of the network",
            "the first 10,000 training images; MNIST: not stated",
            "the first 10,000, of MNIST too; of a small set a fifth",
        ),
        ("split of the other classifiers", "training and test part merged, 8:2", split),
        (
            "layers of the network",
            "three, sizes not in the text",
            f"{', '.join(map(str, learned.mlp.hidden))}, classes",
        ),
        (
            "loss and optimiser of the network",
            "cross-entropy, Adam, 0.001, betas 0.9, 0.999, batch 4",
            f"cross-entropy, Adam, {learned.mlp.learning_rate}, betas 0.9, 0.999, batch {learned.mlp.batch_size}",
        ),
        (
            "epochs of the network",
            "not stated",
            f"{learned.mlp.epochs}, the best on validation is kept"
            f"{', the mean of its weights over epochs' if learned.mlp.average else ''}",
        ),
        (
            "trees and stumps",
            "100",
            f"{learned.random_forest.estimators} and {learned.adaboost.estimators}",
        ),
    ]
