"""Writes `docs/cli.md` from the command's own help: `make docs`. A test compares the two."""

import argparse
import os
from pathlib import Path
from unittest.mock import patch

from study.cli import parser
from study.config_text import documentation

PAGE = Path(__file__).parent / "cli.md"


def page() -> str:
    """The help text of every command, and every key of a study."""
    with patch.dict(os.environ, COLUMNS="100"):
        return _page()


def _page() -> str:
    whole = parser()
    (commands,) = (a for a in whole._actions if isinstance(a, argparse._SubParsersAction))
    parts = ["# Commands and keys", "Made by `make docs` from `study --help`; do not edit."]
    for name, one in {"study": whole, **{f"study {name}": one for name, one in commands.choices.items()}}.items():
        parts.append(f"## {name}\n\n```text\n{one.format_help().rstrip()}\n```")
    rows = [f"| `{key}` | {kind} | {default} | {meaning} |" for key, kind, default, meaning in documentation()]
    parts.append("## Keys of a study\n\n| key | kind | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
