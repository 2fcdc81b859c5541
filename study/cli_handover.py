"""The commands of the owner of the data and of the receiver: train, mask, unmask, classify, inspect, lock, unlock."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from pathlib import Path
from typing import Any

from classifiers import NAMES
from study.config import InputError
from study.config_text import read_config

METRICS = ("accuracy", "precision", "recall")

SAVE = "then train one neural network on all labelled forms and write it there; no other classifier can be saved"
PREDICT = "train nothing: write the class of every masked form, as this saved model sees it, to --out"


def add_handover_commands(commands: Any) -> None:
    """Add these commands to `study`'s."""
    train = _add(commands, "train", "train one autoencoder, no search, no Ray", _train)
    train.add_argument("study", metavar="PRESET-OR-FILE", help="its first latent configuration is trained")
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="where encoder and decoder go")
    add_data_dir(train)
    add_set(train)
    train.set_defaults(goes_on=True)

    mask = _add(commands, "mask", "mask pictures with an encoder", _mask)
    mask.add_argument("images", type=Path, metavar="IMAGES", help="a folder, a folder of class folders, or an .npz")
    mask.add_argument("--encoder", type=Path, required=True, metavar="FILE", help="encoder.safetensors")
    mask.add_argument("--out", type=Path, required=True, metavar="FILE.parquet", help="the masked forms")
    mask.add_argument("--labels", action="store_true", help="write the class of each picture too")
    mask.add_argument("--names", action="store_true", help="write its name too: names may tell what pictures do not")
    mask.add_argument("--skip-broken", action="store_true", help="leave out pictures that cannot be read")

    unmask = _add(commands, "unmask", "restore pictures with the matching decoder", _unmask)
    unmask.add_argument("masked", type=Path, metavar="FILE.parquet", help="masked forms")
    unmask.add_argument("--key", type=Path, required=True, metavar="FILE", help="decoder.safetensors")
    unmask.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the pictures go")
    unmask.add_argument("--anyway", action="store_true", help="use another pair's decoder: what a stranger sees")
    _add_passphrase(unmask)

    classify = _add(commands, "classify", "learn from labelled masked forms", _classify)
    classify.add_argument("masked", type=Path, metavar="FILE.parquet", help="masked forms; to learn, with labels")
    classify.add_argument("--classifiers", nargs="+", metavar="NAME", help=f"default: {' '.join(NAMES)}")
    classify.add_argument("--save", type=Path, metavar="MODEL", help=SAVE)
    classify.add_argument("--predict", type=Path, metavar="MODEL", help=PREDICT)
    classify.add_argument("--splits", type=int, metavar="N", help="random splits (default: 5)")
    classify.add_argument("--seed", type=int, metavar="N", help="of the splits and of --save (default: 0)")
    classify.add_argument("--out", type=Path, metavar="FILE.csv", help="write the table, or the predictions, there")

    inspect = _add(commands, "inspect", "say what an encoder, a decoder, a model or masked forms are", _inspect)
    inspect.add_argument("file", type=Path, metavar="FILE", help=".safetensors or .parquet")
    _add_passphrase(inspect)

    for name, what in (("lock", "lock a decoder by a passphrase"), ("unlock", "take the passphrase from a decoder")):
        turn = _add(commands, name, f"{what}, where it lies", _turn_lock)
        turn.add_argument("file", type=Path, metavar="FILE", help="decoder.safetensors")
        turn.set_defaults(locked=name == "lock")
        _add_passphrase(turn)


def _add_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="read the passphrase there, its first line (default: ask on the terminal)",
    )


def _add(commands: Any, name: str, what: str, command: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    parser.set_defaults(command=command)
    return parser


def add_set(parser: argparse.ArgumentParser) -> None:
    """Let a command override keys of a study."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, for example training.epochs=2; repeatable",
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Let a command say where data sets lie."""
    default = Path(os.environ.get("STUDY_DATA_DIR", "data"))
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=default,
        metavar="DIR",
        help="where data sets lie and are downloaded to (default: $STUDY_DATA_DIR, else data)",
    )


def _train(options: argparse.Namespace) -> None:
    config = read_config(options.study, options.set)
    import torch

    from aae.keys import keeps_private
    from aae.training import DivergedError
    from engine import claim
    from study import datasets
    from study.opening import NOT_PRIVATE
    from study.trial import read_progress, run_trial, trial_specs

    torch.set_num_threads(config.resources.cpu)  # as in a study, whose trials these numbers then equal
    spec = trial_specs(config)[0]
    size, channels = config.network.image_size, config.network.channels
    data = datasets.load(config.data.autoencoder, options.data_dir, size=size, channels=channels)
    train, held_out = datasets.autoencoder_parts(data, config.data)
    if spec.config.training.batch_size > len(train):
        raise InputError(f"batch_size = {spec.config.training.batch_size}: there are {len(train)} training images")
    if options.out.exists() and any(options.out.iterdir()):
        begun = read_progress(options.out)
        if begun is None:
            raise InputError(f"{options.out}: is not empty and holds no trial: choose another --out")
        if begun[0] != spec:
            raise InputError(f"{options.out}: holds trial {begun[0].id}, and this is {spec.id}: choose another --out")
    try:
        for metrics in run_trial(spec, train, held_out, options.out, device=claim(config.resources.gpu)):
            print(
                f"epoch {metrics['epoch']:.0f}/{spec.config.training.epochs}: reconstruction "
                f"{metrics['reconstruction_loss']:.5f}, held-out MSE {metrics['held_out_mse']:.5f}",
                file=sys.stderr,
                flush=True,
            )
    except DivergedError as error:
        raise InputError(f"{options.out}: {error}: lower training.learning_rate, and choose another --out") from None
    if not keeps_private(options.out):
        print(f"{options.out}: {NOT_PRIVATE}", file=sys.stderr)
    print(f"encoder  {options.out / 'encoder.safetensors'}\nkey      {options.out / 'decoder.safetensors'}")


class _Count:
    """How far it is: on a terminal one line, written over and over; elsewhere a line every half minute."""

    def __init__(self, total: int) -> None:
        self._total, self._last, self._over = total, time.monotonic(), sys.stderr.isatty()

    def __call__(self, count: int) -> None:
        if self._over or time.monotonic() - self._last > 30:
            self._last = time.monotonic()
            told = f"{count:,} of {self._total:,}"
            print(f"\r{told}" if self._over else told, end="" if self._over else "\n", file=sys.stderr, flush=True)

    def say(self, line: str = "") -> None:
        """A line of its own, or none, below the count."""
        if line or self._over:
            print(f"\n{line}" if self._over and line else line, file=sys.stderr)


def _mask(options: argparse.Namespace) -> None:
    from study.handover import read_key
    from study.masked_file import write_masked
    from study.pictures import Pictures

    key = read_key(options.encoder, "encoder")
    size, channels = key.network.image_size, key.network.channels
    pictures = Pictures(options.images, size=size, channels=channels, skip_broken=options.skip_broken)

    shown = _Count(pictures.count)

    def told(count: int) -> None:
        while pictures.skipped:
            shown.say(f"study: skipped: {pictures.skipped.pop(0)}")
        shown(count)

    count = write_masked(key, pictures, options.out, labels=options.labels, names=options.names, told=told)
    told(count)
    shown.say()
    print(f"{options.out}: {count} masked forms of {key.latent.length} numbers, pair {key.pair}")


def _unmask(options: argparse.Namespace) -> None:
    from study.handover import read_key, write_pictures
    from study.masked_file import open_masked

    key = read_key(options.key, "decoder", lambda: _passphrase(options))
    masked = open_masked(options.masked)
    shown = _Count(masked.count)
    count = write_pictures(key, masked, options.out, anyway=options.anyway, told=shown)
    shown.say()
    print(f"{options.out}: {count} pictures")


def _classify(options: argparse.Namespace) -> None:
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)  # batches of four: threads would wait for one another most of the time
    with threadpool_limits(1):
        _predict(options) if options.predict else _learn(options)


def _learn(options: argparse.Namespace) -> None:
    from classifiers import NAMES, ClassifiersConfig
    from study.handover import classify_masked, learn_model
    from study.masked_file import open_masked
    from study.model_file import write_model
    from study.records import write_whole

    names = tuple(options.classifiers or NAMES)
    if unknown := [name for name in names if name not in NAMES]:
        raise InputError(f"--classifiers {unknown[0]}: must be of {', '.join(NAMES)}")
    if len(set(names)) < len(names):
        raise InputError(f"--classifiers {' '.join(names)}: must be different ones")
    splits, seed = (default if given is None else given for given, default in ((options.splits, 5), (options.seed, 0)))
    if not 1 <= splits <= 1000:
        raise InputError(f"--splits {splits}: must be from 1 to 1000")
    if options.save and options.out and options.save.absolute() == options.out.absolute():
        raise InputError(f"--save {options.save}: --out names the same file: choose two")
    for option in ("save", "out"):
        path = getattr(options, option)
        if path and path.exists():
            raise InputError(f"{path}: is already there: choose another --{option}")
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)  # now rather than after the training
    masked, config = open_masked(options.masked), ClassifiersConfig()
    table = classify_masked(masked, names, config, splits, seed)
    for row in table.to_dict("records"):
        cells = [f"{m} {row[m]:.3f}" for m in METRICS]
        if splits > 1:
            cells = [
                f"{cell} [{row[f'{m}_low']:.3f}, {row[f'{m}_high']:.3f}]"
                for m, cell in zip(METRICS, cells, strict=True)
            ]
        print(f"{row['classifier']:<22}{'  '.join(cells)}")
    if options.out:
        write_whole(options.out, table.to_csv(index=False))
    if options.save:
        model = learn_model(masked, config, seed)
        write_model(options.save, model)
        print(f"{options.save}: neural network for {len(model.info.classes)} classes, pair {masked.pair}")


def _predict(options: argparse.Namespace) -> None:
    from study.handover import write_predictions
    from study.masked_file import open_masked

    for option in ("save", "classifiers", "splits", "seed"):
        if getattr(options, option) is not None:
            raise InputError(f"--{option}: does not go with --predict, which trains nothing: leave one of them out")
    if not options.out:
        raise InputError("--predict: needs --out FILE.csv for the predictions")
    counts = write_predictions(options.predict, open_masked(options.masked), options.out)
    print(f"{options.out}: classes of {counts['forms']} masked forms")
    if counts.get("forms") and "right" in counts:
        unknown = f"; {counts['unknown']} are of classes the model does not know" if counts["unknown"] else ""
        print(f"accuracy {counts['right'] / counts['forms']:.3f}{unknown}")


def _passphrase(options: argparse.Namespace, *, twice: bool = False) -> str:
    """From the file that was named, else from the terminal."""
    if options.passphrase_file:
        try:
            content: str = options.passphrase_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{options.passphrase_file}: cannot be read ({error}): give a file of text") from None
        return content.partition("\n")[0]
    if not sys.stdin.isatty():
        raise InputError("a passphrase is needed, and there is no terminal to ask on: give --passphrase-file")
    try:
        given = getpass.getpass("passphrase: ")
        again = getpass.getpass("once more: ") if twice else given
    except EOFError:
        raise InputError("no passphrase was given: nothing was done") from None
    if again != given:
        raise InputError("the two passphrases differ: nothing was locked")
    return given


def _turn_lock(options: argparse.Namespace) -> None:
    from study.handover import turn_lock

    turn_lock(options.file, lambda: _passphrase(options, twice=options.locked), locked=options.locked)
    print(f"{options.file}: {'locked: who loses the passphrase loses the key' if options.locked else 'unlocked'}")


def _inspect(options: argparse.Namespace) -> None:
    from study.handover import inspect

    for key, value in inspect(options.file, lambda: _passphrase(options)).items():
        print(f"{key:<12} {value}")
