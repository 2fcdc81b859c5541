"""What one encoder's whole protocol takes, part by part: `python -m benchmarks.protocol DIR`, of a finished study.

Core seconds of the records of the first instance of the first latent configuration, and of the controls, which serve
all encoders. What every part took was measured when it was made; a busy machine shows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from benchmarks.timing import write_page
from study.aggregate import POINT
from study.opening import read_folder_config
from study.records import Record, read_records


def part_of(record: Record, encoder: str, others: set[str]) -> tuple[str, str] | None:
    """Whose time it was, and the part of the protocol; None for what another encoder took."""
    what = record.what
    if record.kind == "classification" and record.trial not in others:
        special = "" if record.trial != encoder or what["representation"] == "masked" else f"{what['representation']}, "
        part = f"{what['dataset']}, protocol {what['protocol']}, {special}{what['classifier'].partition('@')[0]}"
        return "encoder" if record.trial == encoder else "controls", part
    if record.trial != encoder:
        return None
    if record.kind == "attack":
        return "encoder", f"attack on {what['dataset']}"
    return "encoder", "training" if record.kind == "trial" else "matched and unmatched pairs"


def table(folder: Path) -> str:
    """Pieces, core seconds and the longest piece of each part, longest part first."""
    records = read_records(folder)
    complete = [r for r in records if r.kind == "trial" and r.what["status"] == "complete"]
    encoder = min(complete, key=lambda r: ([getattr(r, key) for key in POINT], r.instance)).trial
    others = {r.trial for r in records if r.kind == "trial"} - {encoder}
    placed = [(part_of(record, encoder, others), record.seconds) for record in records]
    rows = pd.DataFrame([(*part, seconds) for part, seconds in placed if part], columns=["whose", "part", "seconds"])
    parts = rows.groupby(["whose", "part"])["seconds"].agg(["size", "sum", "max"]).sort_values("sum", ascending=False)
    lines = ["| whose | part | pieces | core seconds | longest piece, s |", "|---|---|---|---|---|"]
    lines += [
        f"| {whose} | {part} | {row['size']:,.0f} | {row['sum']:,.0f} | {row['max']:,.0f} |"
        for (whose, part), row in parts.iterrows()
    ]
    for whose, total in parts["sum"].groupby(level=0).sum().items():
        lines.append(f"| {whose} | **all** | | {total:,.0f} | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of a finished study")
    options = parser.parse_args()
    config = read_folder_config(options.folder)
    runs = json.loads((options.folder / "manifest.json").read_text())["runs"]
    commits = ", ".join(dict.fromkeys(run["commit"] for run in runs))
    about = (
        f"{config.title}: {config.training.epochs} epochs, {config.draws} draws of each number of classes, "
        f"estimators {', '.join(map(str, config.estimators)) or 'as configured'}. Measured in "
        f"{len(runs)} run(s) on {runs[0]['cores']} cores, at commits {commits}; the machine above made this page alone."
        f"{'' if 'ended' in runs[-1] else ' The study has not ended: what it has still to measure is not in it.'}\n"
    )
    name = f"python -m benchmarks.protocol {options.folder}"
    print(write_page("protocol", ["## By part\n", about, table(options.folder)], name).read_text())
