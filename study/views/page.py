"""A page of sections, rendered twice from the same blocks: as Markdown, and as one self-contained HTML file."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import pandas as pd

from study.records import write_whole
from study.views import tables
from study.views.figures import Shown

_TEMPLATES = jinja2.Environment(loader=jinja2.PackageLoader("study.views"), autoescape=True, trim_blocks=True)

#: How a paragraph in plain words may begin: set in bold on the page.
_LEADS = (
    "What was studied.",
    "Is it useful?",
    "Does another decoder fail?",
    "What do leaked pairs undo?",
    "How sure.",
    "Beside the paper:",
)


@dataclass(frozen=True)
class Section:
    """One part of a page."""

    title: str
    text: list[str] = field(default_factory=list)
    tables: list[tuple[str, pd.DataFrame]] = field(default_factory=list)
    figures: list[Shown] = field(default_factory=list)
    more: list[tuple[str, pd.DataFrame]] = field(default_factory=list)
    """Tables for those who look closer: folded on the page."""


def write_page(folder: Path, name: str, title: str, sections: list[Section]) -> Path:
    """Write `<name>.md`, which refers to the folder's figures, and `<name>.html`, which holds them; return that."""
    write_whole(folder / f"{name}.md", _markdown(title, sections))
    page = folder / f"{name}.html"
    write_whole(page, _html(folder, title, sections))
    return page


def _markdown(title: str, sections: list[Section]) -> str:
    parts = [f"# {title}"]
    for section in sections:
        parts += [f"## {section.title}", *section.text]
        for name, table in [*section.tables, *section.more]:
            parts += [f"**{name}**", tables.to_markdown(table)]
        parts += [
            f"![{shown.alt}](figures/{shown.file})\n\n*{shown.caption}* [Numbers](figures/{shown.name}.csv)"
            for shown in section.figures
        ]
    return "\n\n".join(parts) + "\n"


def _html(folder: Path, title: str, sections: list[Section]) -> str:
    def picture(shown: Shown) -> str:
        content = (folder / "figures" / shown.file).read_bytes()
        kind = "svg+xml" if shown.file.endswith(".svg") else "png"
        return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

    def lead_of(text: str) -> str:
        return next(filter(text.startswith, _LEADS), "")

    template = _TEMPLATES.get_template("page.html.j2")
    return template.render(title=title, sections=sections, picture=picture, lead_of=lead_of)
