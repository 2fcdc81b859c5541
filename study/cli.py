"""The `study` command: parse and hand over. What a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from study.cli_handover import add_data_dir, add_handover_commands, add_set
from study.config import InputError
from study.config_text import documentation, presets, read_config
from study.shapes import check_text

EPILOG = """examples:
  study run quick                                   minutes, no network: results/quick/report.html
  study run paper --data-dir data                   the paper's protocol on CIFAR-10, CIFAR-100 and MNIST
  study run paper --set training.epochs=1 --set instances=2 --set draws=2 --out results/try
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status: 0, 1 where studies differ, or 2 for input that cannot be used."""
    options = parser().parse_args(arguments)
    try:
        _check_names(options)
        return int(options.command(options) or 0)
    except InputError as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"study: interrupted{'; the same command goes on from here' if options.goes_on else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a file where a folder must be, no permission, no room
        if isinstance(error, ConnectionError):
            raise  # of Ray
        place = f"{error.filename}: " if error.filename else ""
        told = InputError(f"{place}{error.strerror or error}: choose another place, make room, or change who may write")
        print(f"study: {told}", file=sys.stderr)
        return 2


def _check_names(options: argparse.Namespace) -> None:
    for option, value in vars(options).items():
        given = value if isinstance(value, list) else [value]
        check_text(option, (str(one) for one in given if isinstance(one, str | Path)))


def parser() -> argparse.ArgumentParser:
    """Every command with its options and help."""
    whole = argparse.ArgumentParser(
        prog="study",
        description="Distributed study of masking images with adversarial autoencoders.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.set_defaults(goes_on=False)
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_study_commands(commands)
    add_handover_commands(commands)
    _add_checks(commands)
    _add_listings(commands)
    return whole


def _add_study_commands(commands: Any) -> None:
    """Run a study, and look at what it left."""
    run = commands.add_parser(
        "run",
        help="run a study, or go on with it",
        description="Run a study. The same command on an existing folder goes on where it was stopped.",
    )
    run.add_argument("study", metavar="PRESET-OR-FILE", help="a preset (see `study presets`) or a TOML file")
    run.add_argument("--out", type=Path, metavar="DIR", help="the study's folder (default: results/<name>)")
    add_data_dir(run)
    run.add_argument(
        "--address", metavar="ADDRESS", help="a Ray cluster to join, `auto` or HOST:PORT (default: start Ray here)"
    )
    add_set(run)
    run.add_argument("--quiet", action="store_true", help="no progress, no tables")
    run.add_argument("--json", action="store_true", help="progress as JSON, one object a line, and no tables")
    run.set_defaults(command=_run, goes_on=True)

    report = commands.add_parser(
        "report",
        help="make report, tables and figures again",
        description="Make report, tables and figures of a study again from its records. Needs no Ray.",
    )
    report.add_argument("folder", type=Path, metavar="DIR", help="the study's folder")
    report.set_defaults(command=_report)

    board = commands.add_parser(
        "tensorboard",
        help="make TensorBoard's event files, say how to open them",
        description="Make the TensorBoard view of a study from its records and artifacts. Needs no Ray.",
    )
    board.add_argument("folder", type=Path, metavar="DIR", help="the study's folder")
    board.add_argument("--rebuild", action="store_true", help="make the view again although it is there")
    board.set_defaults(command=_tensorboard)

    comparison = commands.add_parser(
        "compare",
        help="set several studies side by side",
        description="Set the summaries of several studies side by side. With --exact or --tolerance the exit status "
        "says whether they hold the same numbers: 0 yes, 1 no. A tolerance of 0 is --exact. To one above 0 is added "
        "what chance explains where classifiers are fitted again behind the same encoders: half the 95% interval of "
        "a mean's difference, from how far apart two fits fall.",
    )
    comparison.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folders of two or more studies")
    strict = comparison.add_mutually_exclusive_group()
    strict.add_argument("--exact", action="store_true", help="numbers must be the same to the last bit")
    strict.add_argument(
        "--tolerance", type=float, metavar="X", help="means may differ by X, and by chance on top of it"
    )
    comparison.set_defaults(command=_compare)


def _add_checks(commands: Any) -> None:
    """Before a cluster is paid for, and before an encoder is handed out."""
    check = commands.add_parser(
        "check",
        help="check a file for `ray up`",
        description="Check a cluster file before it costs anything: Ray's own validation and what that lets pass. "
        "Needs no credentials.",
    )
    check.add_argument("file", type=Path, metavar="CLUSTER.yaml", help="the file for `ray up`")
    check.add_argument(
        "--study", default="paper", metavar="PRESET-OR-FILE", help="the study whose shares must fit (default: paper)"
    )
    add_set(check)
    check.set_defaults(command=_check)

    card = commands.add_parser(
        "card",
        help="make the masking card of one encoder",
        description="Make one page, DIR/card.md and DIR/card.html: what an encoder's masked images give away.",
    )
    card.add_argument("folder", type=Path, metavar="DIR", help="the study's folder")
    card.add_argument("--trial", metavar="NAME", help="the encoder (default: the first that was attacked)")
    card.set_defaults(command=_card)


def _add_listings(commands: Any) -> None:
    """What there is: presets, keys, data sets."""
    listing = commands.add_parser(
        "presets",
        help="list the studies that come with the package",
        description="List the studies that come with the package, or every key a study may have.",
    )
    listing.add_argument(
        "--keys", action="store_true", help="every configuration key with its type, default and meaning"
    )
    listing.set_defaults(command=_presets)

    data = commands.add_parser(
        "datasets",
        help="list, fetch or verify data sets",
        description="Say which data sets are known and where they are; fetch or verify some.",
    )
    data.add_argument(
        "action", nargs="?", choices=("list", "fetch", "verify"), default="list", help="what to do (default: list)"
    )
    data.add_argument("names", nargs="*", metavar="NAME", help="data sets to fetch or verify (default: all known)")
    add_data_dir(data)
    data.set_defaults(command=_datasets)


def _run(options: argparse.Namespace) -> None:
    config = read_config(options.study, options.set)
    host, _, port = (options.address or "").rpartition(":")
    if options.address not in (None, "auto") and not (host and port.isdecimal()):
        raise InputError(f"--address {options.address}: must be `auto` or HOST:PORT")
    out = Path(os.path.realpath(options.out or Path("results") / Path(options.study).stem))
    from study.run import run
    from study.views.terminal import Progress, print_end

    with Progress(quiet=options.quiet, as_json=options.json) as progress:
        run(config, out, options.data_dir, options.address, progress)
    if options.json:
        print(json.dumps({"report": str(out / "report.html"), "summary": str(out / "summary.json")}))
    elif not options.quiet:
        settings = [s for s in options.set if not s.startswith("draws=")] + [f"draws={2 * config.draws}"]
        again = ["study", "run", options.study, "--out", str(out)]
        again += ["--data-dir", str(options.data_dir)] if options.data_dir != Path("data") else []
        again += ["--address", options.address] if options.address else []
        again += [word for setting in settings for word in ("--set", setting)]
        print_end(out, shlex.join(again))


def _report(options: argparse.Namespace) -> None:
    from study.views.report import write_report

    write_report(options.folder)
    print(options.folder / "report.html")


def _tensorboard(options: argparse.Namespace) -> None:
    from study.opening import read_folder_config
    from study.views.tensorboard import write_tensorboard

    read_folder_config(options.folder)  # else any folder of that name would do
    place = options.folder / "tensorboard"
    if options.rebuild or not place.exists():
        write_tensorboard(options.folder)
    print(f"tensorboard --logdir {place}")


def _compare(options: argparse.Namespace) -> int:
    from study.views.compare import compare

    tolerance = 0.0 if options.exact else options.tolerance
    return compare(options.folders, tolerance)


def _check(options: argparse.Namespace) -> None:
    config = read_config(options.study, options.set)
    from study.clusterfile import check_cluster_file

    try:
        check_cluster_file(options.file, config.resources, config.storage)
    except RecursionError as error:
        raise InputError(f"{options.file}: is nested too deeply ({error})") from None
    print(f"{options.file}: nothing amiss")


def _card(options: argparse.Namespace) -> None:
    from study.views.card import write_card

    print(write_card(options.folder, options.trial))


def _presets(options: argparse.Namespace) -> None:
    if options.keys:
        for key, kind, default, meaning in documentation():
            print(f"{key}  ({kind}; {default or 'see below'})\n    {meaning}")
        return
    for name, path in presets().items():
        print(f"{name:<10} {read_config(name, []).title}\n{'':<10} {path}")


def _datasets(options: argparse.Namespace) -> None:
    from study import datasets

    names = options.names or list(datasets.KNOWN)
    if unknown := [name for name in names if name not in datasets.KNOWN]:
        raise InputError(f"data set {unknown[0]!r}: must be one of {', '.join(datasets.KNOWN)}")
    for name in names:
        where = datasets.present(name, options.data_dir)
        if options.action == "list":
            print(f"{name:<10} {where or 'not here':<32} {datasets.KNOWN[name]}")
        else:
            if options.action == "verify" and not where:
                raise InputError(f"data set {name}: is not in {options.data_dir}: run `study datasets fetch {name}`")
            data = datasets.load(name, options.data_dir)
            sizes = f"{len(data.train_images)} + {len(data.test_images)} images, {len(data.class_names)} classes"
            print(f"{name:<10} {sizes}, sha256 {data.digest()}")


def entry() -> None:
    """The installed command."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
