"""How often a long reading is saved: by what it would cost to read again what a kill takes.

Places are counted in tokens and follow from the model alone, not from the clock, so that the same
reading gives the same files; so the speeds below are references, not measurements.
"""

from typing import TYPE_CHECKING

from infllm.cli.work import most_keys

if TYPE_CHECKING:
    from infllm.engine import Engine

LOST = 60.0  # seconds of reading that a kill may take
SAVING = 0.03  # part of the time of reading that saving may take
MOST = 32768  # tokens, where saving costs little: what is lost of a small model is seconds anyway
CPU_SPEED = 2e11  # operations a second: a few cores in float32
GPU_SPEED = 2e14
DISK_SPEED = 5e8  # bytes a second, synced


def tokens_between(engine: "Engine", tokens: int) -> int:
    """Tokens between two checkpoints of reading `tokens` tokens, a multiple of the chunk.

    What reading them takes is `LOST` seconds, or more where the state that each checkpoint writes
    anew would otherwise take more than `SAVING` of the time; at most `MOST` tokens, unless that
    state asks for more.
    """
    chunk = engine.config.chunk_size
    per_second = _speed(engine) / _operations(engine)
    by_loss = min(LOST * per_second, MOST)
    by_saving = _state_bytes(engine, tokens) / DISK_SPEED / SAVING * per_second
    return max(1, int(max(by_loss, by_saving)) // chunk) * chunk


def _speed(engine: "Engine") -> float:
    return CPU_SPEED if engine.device.type == "cpu" else GPU_SPEED


def _operations(engine: "Engine") -> float:
    """Floating-point operations of reading a token, the window full."""
    model = engine.config.model
    keys = most_keys(model, model.topk)
    attention = sum(
        4.0 * layer.n_heads * layer.head_dim * keys for layer in engine.attachment.layers
    )
    return 2.0 * engine.model.num_parameters(exclude_embeddings=True) + attention


def _state_bytes(engine: "Engine", tokens: int) -> int:
    """What a checkpoint writes anew: the window, or all keys where nothing leaves it or no unit is
    made of it. Units are written once, however often."""
    policy = engine.config.model.type
    if policy == "infinitehip":
        needs = engine.estimate(tokens, {"type": policy})
        return needs.device_bytes + needs.host_bytes
    kind = policy if policy in ("origin", "sirllm") else "stream-lm"
    return engine.estimate(tokens, {"type": kind}).device_bytes
