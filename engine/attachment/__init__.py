"""A transformers model made to ask the engine where it attends, and what is known of its layers."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.attachment.attachment import Attachment
    from infllm.engine.attachment.cache import Memory, SessionCache
    from infllm.engine.attachment.devices import home, is_spread, split_of, weights_of
    from infllm.engine.attachment.latent_layers import expanded
    from infllm.engine.attachment.layer import Call, Layer, Rotary, Softmax, UnitUse
    from infllm.engine.attachment.layer_ranges import LayerRanges
    from infllm.engine.attachment.loading import auto_class, load_parts, text_config
    from infllm.engine.attachment.one_pass import OnePass
    from infllm.engine.attachment.packed_weights import (
        best_form,
        dense_rows,
        pack_steps,
        refuse_packed,
        rounds_rows,
    )
    from infllm.engine.attachment.refusals import refuse_by_config, refuse_config
    from infllm.engine.attachment.selfcheck import compare, expected_logits
    from infllm.engine.attachment.states import States

__all__ = [
    "Attachment", "Call", "Layer", "LayerRanges", "Memory", "OnePass", "Rotary", "SessionCache",
    "Softmax", "States", "UnitUse", "auto_class", "best_form", "compare", "dense_rows", "expanded",
    "expected_logits", "home", "is_spread", "load_parts", "pack_steps", "refuse_by_config",
    "refuse_config", "refuse_packed", "rounds_rows", "split_of", "text_config", "weights_of",
]  # fmt: skip

__getattr__ = lazily(
    __name__,
    {
        "attachment": ("Attachment",),
        "cache": ("Memory", "SessionCache"),
        "devices": ("home", "is_spread", "split_of", "weights_of"),
        "latent_layers": ("expanded",),
        "layer": ("Call", "Layer", "Rotary", "Softmax", "UnitUse"),
        "layer_ranges": ("LayerRanges",),
        "loading": ("auto_class", "load_parts", "text_config"),
        "one_pass": ("OnePass",),
        "packed_weights": ("best_form", "dense_rows", "pack_steps", "refuse_packed", "rounds_rows"),
        "refusals": ("refuse_by_config", "refuse_config"),
        "selfcheck": ("compare", "expected_logits"),
        "states": ("States",),
    },
)
