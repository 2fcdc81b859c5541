"""What can be unmasked without the key. Nothing here knows who asks.

An attack is a function of what the attacker holds, and returns what it makes of the victims' masked vectors; see
`restore`, the one interface of all. What needs torch or SciPy is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from attacks.config import LINEAR, NAMES, WITH_PAIRS, WITHOUT_PAIRS, AttacksConfig

if TYPE_CHECKING:
    from attacks.knowledge import Knowledge, Own, Restored, draw_pairs
    from attacks.ladder import restore
    from attacks.reidentification import Reidentified, grade, identify

__all__ = [
    "LINEAR", "NAMES", "WITHOUT_PAIRS", "WITH_PAIRS", "AttacksConfig", "Knowledge", "Own", "Reidentified", "Restored",
    "draw_pairs", "grade", "identify", "restore",
]  # fmt: skip

_PLACES = {
    **dict.fromkeys(("Knowledge", "Own", "Restored", "draw_pairs"), "knowledge"),
    "restore": "ladder",
    **dict.fromkeys(("Reidentified", "grade", "identify"), "reidentification"),
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"attacks.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
