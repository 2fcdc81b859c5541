"""What a finished study shows: TensorBoard over its own HTTP interface, and the page that lists everything."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from study.cli import main
from study.trial import read_progress
from study.views import tables
from study.views.tensorboard import Live, write_tensorboard
from tests.conftest import PAGE, known, listed

#: Of studies that search; tests/flow/test_search.py looks at their files.
ELSEWHERE = [("scalars", "trials/*", "objectives/*")]


# --- the page ----------------------------------------------------------------------------------------------------


def test_every_file_has_its_line_and_every_line_its_file(finished):
    patterns = [name for (names,) in listed("Files") for name in names]
    files = [str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()]
    assert [name for name in files if not known(name, patterns)] == []
    idle = [pattern for pattern in patterns if not any(fnmatch.fnmatchcase(name, pattern) for name in files)]
    assert idle == ["trials/*/checkpoint.safetensors"]


def test_every_column_and_key_has_its_line(finished):
    patterns = [name for (names,) in listed("Columns") for name in names]
    summary = json.loads((finished / "summary.json").read_text())
    columns = {column for rows in summary.values() if isinstance(rows, list) for column in tables.long_form(rows)}
    files = [*(finished / "tables").glob("*.csv"), *(finished / "figures").glob("*.csv")]
    for path in [path for path in files if path.read_text().strip()]:  # a table without rows has no columns
        columns |= set(pd.read_csv(path).columns)
    assert len(columns) > 60
    assert [name for name in sorted(columns) if not known(name, patterns)] == []
    assert all(f"`{key}`" in PAGE for key, value in summary.items() if not isinstance(value, list))


def test_every_field_of_a_record_has_its_line(finished):
    names = {name for (cell,) in listed("Records") for name in cell}
    assert set(json.loads((finished / "records.jsonl").read_text().splitlines()[0])) == names


# --- TensorBoard -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(finished, tmp_path_factory):
    """Ask a real TensorBoard over the finished study: `board(path, body)` returns parsed JSON."""
    log = tmp_path_factory.mktemp("board") / "log"
    place = finished / "tensorboard"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", place, "--host", "127.0.0.1", "--port", "0"]
    with log.open("w") as file, subprocess.Popen([*map(str, command)], stdout=file, stderr=file) as server:
        try:
            yield _asker(log, {str(path.parent.relative_to(place)) for path in place.rglob("events.*")})
        finally:
            server.terminate()


def _asker(log, runs):
    for _ in range(240):
        time.sleep(0.5)
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text())
        if found:
            break
    else:
        pytest.fail(log.read_text())

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{found[1]}/data/{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    for _ in range(600):
        if set(ask("runs")) == runs:
            return ask
        time.sleep(0.5)
    return pytest.fail(f"{sorted(set(ask('runs')) ^ runs)} are not shown")


def test_every_tag_has_its_line_and_every_line_its_tag(board):
    lines = [(tab[0], run[0], tag[0]) for tab, run, tag in listed("TensorBoard")]
    shown = [
        (tab, run, tag)
        for tab in ("scalars", "images", "pr_curves", "text")
        for run, tags in board(f"plugin/{tab}/tags").items()
        for tag in tags
    ]
    assert len(shown) > 300

    def fits(one, line):
        return one[0] == line[0] and all(map(fnmatch.fnmatchcase, one[1:], line[1:]))

    assert [one for one in shown if not any(fits(one, line) for line in lines)] == []
    idle = [line for line in lines if not any(fits(one, line) for one in shown)]
    assert [line for line in idle if line not in ELSEWHERE] == []


def test_every_chart_of_the_layout_has_its_numbers(board):
    tags = {tag for run in board("plugin/scalars/tags").values() for tag in run}
    charts = [chart for category in board("plugin/custom_scalars/layout")["category"] for chart in category["chart"]]
    assert {"Fig 5: reconstruction loss", "Fig 6: generating loss", "Fig 7: discriminators' loss"} <= {
        chart["title"] for chart in charts
    }
    for chart in charts:
        for pattern in chart.get("multiline", {}).get("tag", []):
            assert any(re.search(pattern, tag) for tag in tags), pattern
        for series in chart.get("margin", {}).get("series", []):
            assert set(series.values()) <= tags


def test_hparams_has_a_complete_row_for_each_trial(board):
    columns = board("plugin/hparams/experiment", {"experimentName": ""})
    names = [info["name"] for info in columns["hparamInfos"]]
    assert {"latent.gaussian", "training.recipe", "network.widths", "data.autoencoder", "seed"} <= set(names)
    varied = {"instance", "latent.gaussian", "latent.categorical", "seed", "training.batch_size"}
    assert set(names[: len(varied)]) == varied
    asked = {"experimentName": "", "colParams": [], "startIndex": 0, "sliceSize": 10}
    asked["allowedStatuses"] = [f"STATUS_{name}" for name in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
    groups = board("plugin/hparams/session_groups", asked)["sessionGroups"]
    assert len(groups) == 3
    for group in groups:
        assert set(group["hparams"]) == set(names)
        (session,) = group["sessions"]
        assert session["status"] == "STATUS_SUCCESS"
        tags = {metric["name"]["tag"] for metric in session["metricValues"]}
        lacking = {info["name"]["tag"] for info in columns["metricInfos"]} - tags
        without = group["hparams"]["latent.categorical"] == 0
        of_categories = {"categories_used", "largest_probability", "fresh_categorical"}
        assert lacking == ({f"priors/{name}" for name in of_categories} if without else set())


def test_the_projector_has_vectors_labels_and_sprites(board, finished):
    runs = board("plugin/projector/runs")
    assert len(runs) == 2
    for run in runs:
        place = finished / "tensorboard" / run / "projector" / "digits"
        vectors = pd.read_csv(place / "tensors.tsv", sep="\t", header=None)
        labels = (place / "metadata.tsv").read_text().splitlines()
        assert len(vectors) == len(labels) == 256
        assert set(labels) == set("0123456789")


# --- live --------------------------------------------------------------------------------------------------------


def test_live_epochs_follow_what_is_there_and_never_twice(finished, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    trial = min((folder / "trials").iterdir())
    spec, history = read_progress(trial)
    records = (folder / "records.jsonl").read_text().splitlines(keepends=True)
    (folder / "records.jsonl").write_text("".join(r for r in records if f'"trial/{trial.name}"' not in r))
    live = Live(folder)
    for epoch in (3, 4, 4):
        live.epoch(spec, history[-1] | {"epoch": epoch, "time_total_s": 1.0})
    assert statuses(folder, trial.name) == ["session_start_info"]
    live.end(spec, failed=True)
    events = EventAccumulator(str(folder / "tensorboard" / "trials" / trial.name)).Reload()
    assert [event.step for event in events.Scalars("losses/reconstruction_loss")] == [1, 2, 3, 4]
    assert "priors/time_total_s" not in events.Tags()["scalars"]
    assert "session_end_info" in statuses(folder, trial.name)
    write_tensorboard(folder)
    events = EventAccumulator(str(folder / "tensorboard" / "trials" / trial.name)).Reload()
    assert [event.step for event in events.Scalars("losses/reconstruction_loss")] == [1, 2, 3]


def statuses(folder, trial):
    events = EventAccumulator(str(folder / "tensorboard" / "trials" / trial)).Reload()
    return sorted(tag.rpartition("/")[2] for tag in events.PluginTagToContent("hparams"))


def test_the_command_makes_the_view_where_there_is_none(finished, tmp_path, capsys):
    folder = tmp_path / "study"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("tensorboard"))
    for options in ([], ["--rebuild"]):
        assert main(["tensorboard", str(folder), *options]) == 0
        assert capsys.readouterr().out == f"tensorboard --logdir {folder / 'tensorboard'}\n"
    ours, theirs = (
        sorted(str(path.parent.relative_to(root)) for path in (root / "tensorboard").rglob("events.*"))
        for root in (folder, finished)
    )
    assert ours == theirs


# --- comparing ---------------------------------------------------------------------------------------------------


def test_a_study_equals_its_copy_and_a_changed_number_is_told(finished, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    lines = (finished / "records.jsonl").read_text().splitlines()
    (copy / "records.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["compare", str(finished), str(copy), "--exact"]) == 0
    assert " 0 differ" in capsys.readouterr().out
    for kind, metric in (("attack", "mse"), ("trial", "held_out_mse")):
        number = next(i for i, line in enumerate(lines) if json.loads(line)["kind"] == kind)
        changed = json.loads(lines[number])
        changed["metrics"][metric] += 1e-4
        told = [*lines[:number], json.dumps(changed), *lines[number + 1 :]]
        (copy / "records.jsonl").write_text("\n".join(told) + "\n")
        assert main(["compare", str(finished), str(copy), "--exact"]) == 1
        assert "differs" in capsys.readouterr().out
    assert main(["compare", str(finished), str(copy), "--tolerance", "0.001"]) == 0
    assert main(["compare", str(finished), str(copy)]) == 0
    (copy / "records.jsonl").write_text("\n".join(lines[:number] + lines[number + 1 :]) + "\n")
    assert main(["compare", str(finished), str(copy), "--tolerance", "1"]) == 1
    assert "missing" in capsys.readouterr().out


# --- a report of an unfinished study -----------------------------------------------------------------------------


def test_a_report_says_what_is_missing_and_what_makes_it(finished, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("tensorboard", "artifacts"))
    lines = (folder / "records.jsonl").read_text().splitlines(keepends=True)
    (folder / "records.jsonl").write_text("".join(line for line in lines if json.loads(line)["kind"] == "trial"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["runs"][-1].pop("ended") > manifest["runs"][-1]["time"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["report", str(folder)]) == 0
    assert "What is missing" not in (finished / "report.md").read_text()
    page = (folder / "report.md").read_text()
    for what in ("classification, protocol `paper`", "classification, protocol `shared`", "unmatched pairs on P"):
        assert what in page
    assert f"--out {folder}" in page
    assert "nan" not in page
