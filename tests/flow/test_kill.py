"""SIGKILL and the same command again; `tests/kill.py` does it for any study."""

import pytest

from tests.flow.test_search import SEARCH
from tests.kill import PHASES, main

#: The same without a search: enough to be killed in every phase, and no more.
SMALL = "instances = 2\n" + SEARCH.partition("[search]")[0]


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("text", [SMALL, SEARCH], ids=["study", "search"])
def test_killed_in_every_phase(text, tmp_path, capsys):
    (tmp_path / "small.toml").write_text(text)
    main([str(tmp_path / "small.toml"), "--kills", str(20 if text == SEARCH else 6), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert all(f": {phase}, " in told for phase in PHASES), told
