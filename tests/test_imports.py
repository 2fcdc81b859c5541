"""The law of imports."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_contracts_hold():
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_modules_are_named_for_what_they_are():
    rooms = "aae", "attacks", "classifiers", "engine", "study"
    names = {path.name for room in rooms for path in (ROOT / room).rglob("*.py")}
    assert not names & {"utils.py", "helpers.py", "common.py", "misc.py"}
