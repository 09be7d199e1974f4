"""Smaller models: heads, channels and dimensions that matter least are removed (LLM-Pruner)."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.prune.builtin_text import BUILTIN_TEXT
    from infllm.engine.prune.calibration import EXAMPLES, LENGTH, calibration_sequences
    from infllm.engine.prune.place import check_place
    from infllm.engine.prune.pruner import PruneSettings, Removal, count_parameters, prune, spared
    from infllm.engine.prune.recovery import Recovery, recover
    from infllm.engine.prune.saving import CARD, save_model, stored_dtype
    from infllm.engine.prune.shapes import Shape, load_shaped, pad, shape_of, told_shape

HOMES = {
    "builtin_text": ("BUILTIN_TEXT",),
    "calibration": ("EXAMPLES", "LENGTH", "calibration_sequences"),
    "place": ("check_place",),
    "pruner": ("PruneSettings", "Removal", "count_parameters", "prune", "spared"),
    "recovery": ("Recovery", "recover"),
    "saving": ("CARD", "save_model", "stored_dtype"),
    "shapes": ("Shape", "load_shaped", "pad", "shape_of", "told_shape"),
}
__all__ = [
    "BUILTIN_TEXT",
    "CARD",
    "EXAMPLES",
    "LENGTH",
    "PruneSettings",
    "Recovery",
    "Removal",
    "Shape",
    "calibration_sequences",
    "check_place",
    "count_parameters",
    "load_shaped",
    "pad",
    "prune",
    "recover",
    "save_model",
    "shape_of",
    "spared",
    "stored_dtype",
    "told_shape",
]

__getattr__ = lazily(__name__, HOMES)
