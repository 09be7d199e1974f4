"""Memory units of one layer: where they lie, and how they come to the device."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.units.call_pages import CallPages
    from infllm.engine.units.faiss_index import FaissIndex
    from infllm.engine.units.lookup_by_keys import key_masses, likely_units, moment_masses
    from infllm.engine.units.sizes import PAGE, Estimate, estimate, keeps_latents
    from infllm.engine.units.slab import Run, by_unit
    from infllm.engine.units.slot_table import SlotTable
    from infllm.engine.units.store import UnitStore
    from infllm.engine.units.token_store import TokenStore

__all__ = [
    "PAGE", "CallPages", "Estimate", "FaissIndex", "Run", "SlotTable", "TokenStore", "UnitStore",
    "by_unit", "estimate", "keeps_latents", "key_masses", "likely_units", "moment_masses",
]  # fmt: skip

__getattr__ = lazily(
    __name__,
    {
        "call_pages": ("CallPages",),
        "faiss_index": ("FaissIndex",),
        "lookup_by_keys": ("key_masses", "likely_units", "moment_masses"),
        "sizes": ("PAGE", "Estimate", "estimate", "keeps_latents"),
        "slab": ("Run", "by_unit"),
        "slot_table": ("SlotTable",),
        "store": ("UnitStore",),
        "token_store": ("TokenStore",),
    },
)
