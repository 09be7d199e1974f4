"""A session: reading tokens, scoring them, and generating more."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.session.backing import Backing
    from infllm.engine.session.reading import Progress
    from infllm.engine.session.results import Stats, Token, UnitMass
    from infllm.engine.session.session import Session

__all__ = ["Backing", "Progress", "Session", "Stats", "Token", "UnitMass"]

__getattr__ = lazily(
    __name__,
    {
        "backing": ("Backing",),
        "reading": ("Progress",),
        "results": ("Stats", "Token", "UnitMass"),
        "session": ("Session",),
    },
)
