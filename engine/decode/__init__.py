"""One token after another: steps in place, recorded and replayed, and the choice of the next."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.decode.decoder import Decoder, Record, record_cuda, stepping
    from infllm.engine.decode.sampling import Sampler
    from infllm.engine.decode.step_tokens import StepTokens

__all__ = [
    "Decoder",
    "Record",
    "Sampler",
    "StepTokens",
    "record_cuda",
    "stepping",
]

__getattr__ = lazily(
    __name__,
    {
        "decoder": (
            "Decoder",
            "Record",
            "record_cuda",
            "stepping",
        ),
        "sampling": ("Sampler",),
        "step_tokens": ("StepTokens",),
    },
)
