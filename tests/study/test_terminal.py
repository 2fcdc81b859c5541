"""Progress for people at a terminal, for logs and for programs."""

import json
import time

from study.views.terminal import Progress

METRICS = {"epoch": 1.0, "reconstruction_loss": 0.1, "held_out_mse": 0.25}


def show(**options):
    with Progress(**options) as progress:
        progress.phase("trials", 2, pieces="epochs")
        for name, error in (("g8-i0", 0.25), ("g8-i1", 0.125)):
            progress.trial(name, METRICS | {"held_out_mse": error})
            progress.advance(f"{name} [bold]")
        progress.note("g8-i1 failed: [x]")


def test_a_terminal_shows_trials_and_the_best_so_far(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the stream for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    show()
    captured = capsys.readouterr()
    assert "lowest held-out MSE so far  0.12500  g8-i1" in captured.err
    assert "g8-i1 failed: [x]" in captured.err
    assert captured.out == ""


def test_elsewhere_there_are_plain_lines(capsys):
    show()
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0] == "trials, epochs: 2 to do"
    assert "trials, epochs 2/2, 0 s left  g8-i1 [bold]" in captured.err
    assert captured.out == ""


def test_a_program_gets_one_object_a_line(capsys):
    show(as_json=True)
    captured = capsys.readouterr()
    told = [json.loads(line) for line in captured.out.splitlines()]
    assert told[0] == {"phase": "trials", "done": 0, "total": 2}
    assert told[1] == {"trial": "g8-i0", **METRICS}
    assert told[-1] == {"note": "g8-i1 failed: [x]"}
    assert captured.err == ""


def test_quiet_says_nothing_but_what_must_not_be_missed(capsys):
    show(quiet=True)
    assert capsys.readouterr() == ("", "g8-i1 failed: [x]\n")


def test_the_time_left_follows_the_work_where_pieces_differ(monkeypatch, capsys):
    clock = iter([0.0, 30.0, 5000.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with Progress(as_json=True) as progress:
        progress.phase("classification", 3, 4.0)
        progress.advance("a long one", 3.0)
        progress.advance("a short one", 0.5)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["seconds_left"] for one in told[1:]] == [10.0, round(5000 / 7, 1)]
