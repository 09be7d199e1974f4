"""A large model's states added to what a small one reads (LLM-to-SLM)."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.guide.alignment import carried, overlaps, spans
    from infllm.engine.guide.encoder import Encoder
    from infllm.engine.guide.guide import Guide, Projector, load_guide, save_projector

HOMES = {
    "alignment": ("carried", "overlaps", "spans"),
    "encoder": ("Encoder",),
    "guide": ("Guide", "Projector", "load_guide", "save_projector"),
}
__all__ = [
    "Encoder",
    "Guide",
    "Projector",
    "carried",
    "load_guide",
    "overlaps",
    "save_projector",
    "spans",
]

__getattr__ = lazily(__name__, HOMES)
