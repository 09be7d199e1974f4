"""How decode steps are recorded: once for all sessions of an engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from infllm.engine.attachment import home, is_spread, split_of

Replay = Callable[[], object]
Record = Callable[[Callable[[], None]], Replay]


class Recorder:
    """What records the steps of a model, or why nothing does."""

    def __init__(self, model: Any) -> None:
        self.why_not = _why_not(model)
        self.record: Record | None = None
        if self.why_not is None:
            self.record = partial(record_cuda, device=home(model))

    def give_up(self, why_not: str) -> None:
        """Something in a step cannot be recorded: none is from now on."""
        self.record, self.why_not = None, why_not


def _why_not(model: Any) -> str | None:
    if split_of(model) is not None:
        return "the model is split over several processes"
    if is_spread(model):
        return "the model is spread over several devices"
    return None if home(model).type == "cuda" else "CUDA graphs are for CUDA devices"


def record_cuda(run: Callable[[], None], device: torch.device) -> Replay:
    """A CUDA graph of `run` on `device`; `run` is run once before: that compiles its kernels.

    Raises RuntimeError where something in it cannot be captured.
    """
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # What other threads do with the device meanwhile is none of the capture's concern.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            run()
    return partial(_replay, graph, device)


def _replay(graph: torch.cuda.CUDAGraph, device: torch.device) -> None:
    """On the device's current stream, whatever device is the current one."""
    with torch.cuda.device(device):
        graph.replay()
