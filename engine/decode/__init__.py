"""One token after another: steps in place, recorded and replayed, and the choice of the next."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.decode.decoder import Decoder, all_recordable
    from infllm.engine.decode.recordable import Recordable
    from infllm.engine.decode.recorder import Record, Recorder
    from infllm.engine.decode.sampling import Sampler
    from infllm.engine.decode.step_tokens import StepTokens

__all__ = ["Decoder", "Record", "Recordable", "Recorder", "Sampler", "StepTokens", "all_recordable"]

__getattr__ = lazily(
    __name__,
    {
        "decoder": ("Decoder", "all_recordable"),
        "recordable": ("Recordable",),
        "recorder": ("Record", "Recorder"),
        "sampling": ("Sampler",),
        "step_tokens": ("StepTokens",),
    },
)
