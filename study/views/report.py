"""Report, summary, tables and figures of a study's folder, from its records and artifacts alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from study import paper
from study.aggregate import POINT, summarise
from study.artifacts import artifact, read_arrays
from study.claims import CLAIMS, COMPARABLE, FEW, NEGLIGIBLE, ORDER, ORDERS, SEARCHED, claims
from study.config import InputError, StudyConfig
from study.evaluate import MIRRORED
from study.opening import read_folder_config, read_manifest
from study.records import Record, frame, read_records, write_whole
from study.trial import encoder_parameters, read_result
from study.unmasking import summarise_attacks
from study.views import attacks, figures, items, mask, search, tables, words
from study.views.figures import Shown
from study.views.page import Section, write_page
from study.views.tables import Summary


def write_report(folder: Path) -> None:
    """Make every view of a study again: `summary.json`, `tables/`, `figures/`, `report.md`, `report.html`.

    Needs neither Ray nor the data sets. Raises `InputError` where there is no study, or nothing measured yet.
    """
    config, manifest = read_folder_config(folder), read_manifest(folder)
    records = read_records(folder)
    if not records:
        raise InputError(f"{folder}: holds no records yet: run `study run` on it again")
    summary = summarise(records) | summarise_attacks(records)
    complete = [row["trial"] for row in summary["trials"] if row["status"] == "complete"]
    results = {trial: read_result(folder / "trials" / trial) for trial in complete}
    histories = {trial: result["history"] for trial, result in results.items()}
    estimators = {name: getattr(config.classifiers, name).estimators for name in ("random_forest", "adaboost")}
    summary["claims"] = claims(summary, records, histories, estimators)
    if found := search.found(folder, config, records):
        summary["search"] = found
    write_whole(folder / "summary.json", json.dumps(summary) + "\n")
    for name, rows in summary.items():
        if isinstance(rows, list):
            write_whole(folder / "tables" / f"{name}.csv", tables.long_form(rows).to_csv(index=False))
    sections = list(_sections(folder, config, summary, manifest, records, results))
    title = manifest["title"] or folder.name
    write_page(folder, "report", title, sections)


def printed_tables(folder: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables worth a look at the end of a run."""
    summary = json.loads((folder / "summary.json").read_text())
    pairs = tables.reconstruction(summary)
    if len(pairs):
        yield "Restoring held-out images", pairs.loc[pairs["images"] == "V", ["latent", "restored by", "MSE", "pairs"]]
    if summary["unmasking"]:
        yield "Is it a mask? Pairs to unmask", attacks.pairs_to_unmask(summary)
    for protocol in _protocols(summary)[-1:]:
        yield f"Accuracy on masked images, protocol {protocol}", tables.classification(summary, protocol, "accuracy")


def _protocols(summary: Summary) -> list[str]:
    return sorted({row["protocol"] for row in summary["classification"]})


# --- what the sections say ---------------------------------------------------------------------------------------


def _sections(
    folder: Path,
    config: StudyConfig,
    summary: Summary,
    manifest: dict[str, Any],
    records: list[Record],
    results: dict[str, Any],
) -> Iterator[Section]:
    yield Section("In plain words", words.plain_words(summary), [], _masked_forms(folder, summary))
    if missing := _missing(folder, config, summary, manifest):
        yield Section("What is missing", missing)
    if "search" in summary:
        yield search.section(folder, summary["search"])
    if summary["claims"]:
        yield _claims(summary)
    if summary["trials"]:
        yield _autoencoders(folder, summary, results)
    if summary["reconstruction"]:
        yield _pairs(folder, summary, config.network.pixels)
    for protocol in _protocols(summary):
        yield _classification(folder, summary, protocol, records)
    if any(row["representation"] != "masked" for row in summary["classification"]):
        yield _controls(summary)
    if any("@" in row["classifier"] for row in summary["classification"]):
        yield _estimators(summary)
    if summary["attacks"]:
        yield mask.section(folder, summary, records)
    if any("paper" in row["accuracy"] and tables.is_papers(row) for row in summary["classification"]):
        yield items.section(config)
    yield _provenance(manifest)


def _masked_forms(folder: Path, summary: Summary) -> list[Shown]:
    """Fig 1, of the first autoencoder with the longest Gaussian part whose pictures are there."""
    for trial in sorted(summary["trials"], key=lambda t: -t["gaussian"]):
        path = artifact(folder, "pictures", trial["trial"], "V")
        if path.exists():
            return figures.masked_forms(folder / "figures", read_arrays(path), trial["trial"], trial["gaussian"])
    return []


def _missing(folder: Path, config: StudyConfig, summary: Summary, manifest: dict[str, Any]) -> list[str]:
    """What the configuration asks for and no record holds; nothing where the study ended."""
    if "ended" in manifest["runs"][-1]:
        return []
    missing = [f"classification, protocol `{name}`" for name in config.protocols if name not in _protocols(summary)]
    known = {(r["dataset"], r["classes"]) for r in summary["classification"]}
    if known:
        asked = [(task.data, count) for task in config.tasks for count in task.classes]
        missing += [f"classification of {d}, {n} classes" for d, n in asked if (d, n) not in known]
    restored = {r["images"] for r in summary["reconstruction"]}
    names = ["P", "T", "V", *(f"{task.data} {part}" for task in config.tasks for part in "TV")]
    missing += [f"matched and unmatched pairs on {name}" for name in names if name not in restored]
    missing += attacks.lacking(summary, config.attacks)
    return [
        f"This study has not ended: all below rests on the records so far. `study run` with the same preset or file "
        f"and `--out {folder}` goes on.",
        *([f"There are no records yet of {'; '.join(missing)}."] if missing else []),
    ]


def _classification(folder: Path, summary: Summary, protocol: str, records: list[Record]) -> Section:
    explained = {
        "paper": "The paper's splits: the neural network learns from the training part less a validation part and is "
        "tested on the test part; the others learn from training and test part merged, 8:2. Rows of different "
        "classifiers therefore rest on different test images.",
        "shared": "One split for every classifier, each component standardised on the training part; test images "
        "that also stand in the training part are left out. Only these rows compare classifiers; the paper has no such "
        "split.",
    }[protocol]
    reading = (
        "Mean ± deviation over draws (ddof 1), and the 95% interval of the mean over draws and encoders. Precision and "
        "recall are means over the classes; a class that is never predicted counts 0. `one-hot`: a forest that learned "
        "one-hot targets, and may name no class, which counts as wrong. AdaBoost is SAMME. What accuracy is "
        "lost with more classes has Welch's interval, over draws alone, for the draws differ."
    )
    mine = [r for r in summary["classification"] if r["protocol"] == protocol]
    if any("paper" in r["accuracy"] and tables.is_papers(r) for r in mine):
        reading += (
            " Beside the paper's cells (its Tables 1 and 2) stands the difference, with Welch's 95% interval where the "
            "paper gives a deviation; a star where that leaves out zero."
        )
    shown = figures.accuracy(folder / "figures", summary, protocol)
    drawn: list[tuple[str, pd.DataFrame]] = []
    masked = tables.in_order([r for r in mine if r["representation"] == "masked"])
    points = {r["latent"]: r for r in list(filter(tables.is_papers, masked)) or masked[:1]}
    for number, one in enumerate(points.values() if protocol == "paper" else ()):
        learned = [r for r in records if r.kind == "classification"]
        same = [r for r in learned if all(getattr(r, key) == one[key] for key in POINT)]
        drawn += [
            (
                f"{dataset}, {classes} classes, latent {one['latent']}, draw by draw, means over encoders: accuracy / "
                f"precision / recall (the paper's S5 to S7 Tables, which are not in its text)",
                tables.draws(frame(same, "classification"), dataset, classes),
            )
            for dataset, classes in sorted({(r["dataset"], r["classes"]) for r in mine})
        ]
        shown += figures.classifier_curves(folder / "figures", f"classifier-{number}", same, one["latent"])
    others = [(n.capitalize(), tables.classification(summary, protocol, n)) for n in ("precision", "recall")]
    return Section(
        f"Classification of masked images: protocol `{protocol}`",
        [explained, reading],
        [
            ("Accuracy", tables.classification(summary, protocol, "accuracy")),
            *((("Accuracy lost with more classes", lost),) if len(lost := tables.drops(summary, protocol)) else ()),
            *(others if protocol == "paper" else ()),  # the paper has them
        ],
        shown,
        [*(() if protocol == "paper" else others), *((name, one) for name, one in drawn if len(one) > 1)],
    )


def _claims(summary: Summary) -> Section:
    papers, others = tables.claims(summary), tables.claims(summary, others=True)
    told = {row["claim"] for row in summary["claims"]}
    untold = [f"{number} ({words})" for number, words in CLAIMS.items() if number not in told]
    return Section(
        "What the paper concludes, and whether it holds here",
        [
            "Each claim says that quantities lie in a range. A comparison confirms it where the 95% interval of its "
            "quantity lies inside the range, refutes it where it lies outside, and leaves it undecided where it "
            f"straddles an end or rests on fewer than {FEW} repetitions (draws, encoders, trials; images, for an "
            "attack). A claim about every attacker is never confirmed: an attack that fails proves nothing. "
            "Classifiers are compared in `shared`, paired by draw. Of the attackers named here, `ridge`, `inversion` "
            "and those named `stitch` learn from leaked pairs, `other_decoder` is another instance's, `oracle` may "
            "mask images of their own, `weights` holds the encoder, `moments` and `transport` hold other images and no "
            "pair.",
            f"Where the paper gives no number the range is ours: comparable, close to and enough mean within "
            f"{COMPARABLE}, faster a ratio above 1, an order of magnitude one above {ORDER:g}, two "
            f"orders of magnitude a ratio above {ORDERS:g}, no significant improvement one below {NEGLIGIBLE}, "
            "restored an error below `attacks.target`. Where the paper's own value lies outside what is claimed, its "
            "words and its tables disagree.",
            *_patterns(summary),
            *(
                ["Trials of the search count as independent, although its sampler chose each after others."]
                if any(row["on"] == SEARCHED for row in summary["claims"])
                else []
            ),
            *([f"This study says nothing of claim {'; '.join(untold)}."] if untold else []),
        ],
        [
            ("Comparisons by what they say of each claim", tables.verdicts(summary)),
            *((("Every comparison, on the paper's latent configuration", papers),) if len(papers) else ()),
        ],
        [],
        [("Every comparison, on other latent configurations", others)] if len(others) else [],
    )


def _patterns(summary: Summary) -> Iterator[str]:
    """Why claim 6 is not judged on test patterns, and what both sides have there."""
    theirs = {pair: paper.EQUATIONS["P", pair][0] for pair in ("unmatched", "matched")}
    ours: dict[str, dict[str, float]] = {}
    for row in filter(tables.is_papers, tables.in_order(summary["reconstruction"])):
        if row["images"] == "P":
            ours.setdefault(row["latent"], {})[row["pair"]] = row["mean"]
    ratios = [f"{means['unmatched'] / means['matched']:.1f} ({n})" for n, means in ours.items() if "unmatched" in means]
    if ratios:
        yield (
            f"Claim 6 is not judged on test patterns. The paper's, which are not in its text, have "
            f"{theirs['unmatched']} unmatched over {theirs['matched']} matched, "
            f"{theirs['unmatched'] / theirs['matched']:.0f} times: the one set on which its numbers bear out two "
            f"orders of magnitude. Ours are others, and have {', '.join(ratios)}."
        )


def _controls(summary: Summary) -> Section:
    text = (
        "Other vectors through the same classifiers, split and scaling (`shared`): raw pixels; principal "
        "components and a Gaussian random projection of the same length, fitted on the autoencoder's images; an "
        "untrained encoder. Differences are paired by draw; a star marks an interval that leaves out zero and rests "
        f"on at least {FEW} draws or encoders. AdaBoost is not tried on raw pixels, nor one-hot targets on mirror "
        "images."
    )
    mirrored = (
        "`mirrored` is no control but more of the encoder: the masked forms of an image and of its mirror image, to "
        "learn from and to judge by."
    )
    shown = any(row["representation"] == MIRRORED for row in summary["classification"])
    return Section(
        "What the trained encoder is worth",
        [text, *([mirrored] if shown else [])],
        [
            ("Accuracy of masked forms less a control's", tables.differences(summary, classifiers=False)),
            ("Accuracy of the neural network less another classifier's", tables.differences(summary, classifiers=True)),
        ],
        [],
        [("Accuracy of the controls", tables.controls(summary))],
    )


def _estimators(summary: Summary) -> Section:
    return Section(
        "More estimators",
        [
            "Protocol `paper`, of the first autoencoder. The paper: no significant improvement when the number of "
            "estimators was increased."
        ],
        [("Accuracy by number of trees or stumps, first autoencoder", tables.estimators(summary))],
    )


def _pairs(folder: Path, summary: Summary, pixels: int) -> Section:
    shown, lacking = [], []
    groups: dict[tuple[str, str], list[str]] = {}
    complete = [trial for trial in summary["trials"] if trial["status"] == "complete"]
    for trial in tables.in_order(complete):  # a search may vary more than the latent configuration
        groups.setdefault((trial["latent"], trial.get("point", "")), []).append(trial["trial"])
    for number, ((point, _), trials) in enumerate(groups.items()):
        for images, title in (("V", "Held-out images (the paper's Fig 8)"), ("P", "Test patterns (its Fig 9)")):
            paths = {t: artifact(folder, "pictures", t, images) for t in trials}
            if any(row["images"] == images for row in summary["reconstruction"]):
                lacking += [path.name for path in paths.values() if not path.exists()]
            loaded = {t: read_arrays(path) for t, path in paths.items() if path.exists()}
            shown += figures.pair_matrix(folder / "figures", f"pairs-{images}-{number}", f"{title}, {point}", loaded)
    return Section(
        "Matched and unmatched pairs",
        [
            "Mean squared error over all components, pixels from 0 to 1 (the paper's Eqs 1 to 12). P: black-and-white "
            "test patterns of our own, since the paper's are not in its text; T: training images; V: images kept from "
            "training; with the name of a data set, what trains and validates the neural network there: the paper "
            "leaves open which set its T and V are from. The mean image is that of the training images, which is far "
            "from other data sets. A configuration of one instance has no unmatched pair. No deviation is shown over "
            "fewer than ten means of 16 images, nor over one pair.",
            *([f"Not in `artifacts/`, and so not shown: {', '.join(lacking)}."] if lacking else []),
        ],
        [
            ("Mean squared error, by who restores", tables.restoration(summary)),
            (
                "The same with deviations, over images, over means of 16 images, over pairs",
                tables.reconstruction(summary),
            ),
        ],
        [*figures.latent_length(folder / "figures", summary, pixels), *shown],
    )


def _autoencoders(folder: Path, summary: Summary, results: dict[str, Any]) -> Section:
    complete = [t for t in summary["trials"] if t["status"] == "complete"]
    histories = {trial: result["history"] for trial, result in results.items()}
    sizes = {t["latent"]: encoder_parameters(results[t["trial"]]) for t in complete}
    counted = "; ".join(f"{point}: {number:,}" for point, number in sizes.items())
    names = {t["trial"]: f"{t['latent']}, instance {t['instance']}" for t in complete}
    shown = figures.learning_curves(folder / "figures", histories, names)
    return Section(
        "The autoencoders",
        [
            "All on images kept from training, in evaluation mode. A Gaussian latent has means near 0, deviations "
            "near 1, and the effective rank, correlation and marginals of a true sample of the same size. Fresh "
            "discriminators: held-out accuracy of newly trained ones (Gaussian, categorical part); 0.5 is a latent "
            "that cannot be told from its prior.",
            f"Trainable parameters of the encoder before any flow, which the paper puts at over 400 thousand: "
            f"{counted}. The loss of Fig 7 is the sum of both discriminators'.",
        ],
        [("Reconstruction and priors", tables.trials(summary))],
        shown,
    )


def _provenance(manifest: dict[str, Any]) -> Section:
    runs, last = manifest["runs"], manifest["runs"][-1]
    taken = manifest.get("encoders_from")
    rows = [
        ("study seed", manifest["seed"]),
        ("commits", ", ".join(dict.fromkeys(run["commit"] for run in runs))),
        ("runs", f"{len(runs)}, from {runs[0]['time']} to {last.get('ended', 'an end that is not told')}"),
        *((("encoders", f"taken from {taken}"),) if taken else ()),
        ("machine", ", ".join(filter(None, (last["system"], f"{last['cores']} cores", last.get("processor"))))),
        ("versions", ", ".join(f"{k} {v}" for k, v in {"python": last["python"], **last["packages"]}.items())),
        *(
            (f"data {name}", f"{d['train']:,} training and {d['test']:,} test images, sha256 {d['sha256'][:16]}…")
            for name, d in manifest["data"].items()
        ),
    ]
    text = "Machine and versions are those of the last run; `manifest.json` has them for each." if len(runs) > 1 else ""
    table = pd.DataFrame(rows, columns=["what", "value"])
    return Section("Where the numbers come from", [text] if text else [], [("Manifest", table)])
