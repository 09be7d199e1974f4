"""Copies of memory units between host and device, beside the computing that goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from infllm.kernels.dispatch import takes_triton

PINNED = 2**28  # bytes of pinned memory in flight, at most, each way


class Staging:
    """Copies that are done when they are asked for: all that a CPU needs.

    What is asked for need not be done on return, in a class below; `wait`, `settle` say when it is.
    """

    ahead = False  # whether it pays to ask early

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A host tensor for `upload`."""
        return torch.empty(tuple(shape), dtype=dtype)

    def begin(self, *targets: Tensor) -> None:
        """Uploads from now on come after all that the device was told so far, and may write to
        `targets`, which live as long as any of them."""

    def upload(self, host: Sequence[Tensor], put: Callable[..., object]) -> Any:
        """Bring host tensors from `empty` to the device and call `put` with them there.

        Returns a mark for `wait`.
        """
        put(*host)
        return None

    def wait(self, mark: Any) -> None:
        """What the device is told from now on comes after the upload that gave `mark`."""

    def download(self, source: Tensor, target: Tensor, owner: object) -> None:
        """Copy a device tensor to `target` on the host, which `settle(owner)` completes."""
        target.copy_(source)

    def settle(self, owner: object) -> None:
        """All downloads for `owner` are in their targets on return."""

    def drain(self) -> None:
        """Let downloads that have come in meanwhile go to their targets; waits for none."""


@dataclass(frozen=True)
class _Download:
    event: torch.cuda.Event
    pinned: Tensor
    target: Tensor
    owner: object


class CudaStaging(Staging):
    """A stream of its own for each way, through pinned memory of bounded size.

    torch's allocator of pinned memory reuses a buffer only when its copies are done.
    """

    ahead = True

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._up = torch.cuda.Stream(device)
        self._down = torch.cuda.Stream(device)
        self._uploads: deque[tuple[torch.cuda.Event, int]] = deque()
        self._downloads: deque[_Download] = deque()
        self._bytes_up = self._bytes_down = 0

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)

    def begin(self, *targets: Tensor) -> None:
        self._up.wait_stream(torch.cuda.current_stream(self.device))
        for target in targets:
            target.record_stream(self._up)

    def upload(self, host: Sequence[Tensor], put: Callable[..., object]) -> torch.cuda.Event:
        with torch.cuda.stream(self._up):
            put(*(x.to(self.device, non_blocking=True) for x in host))
            event = self._up.record_event()
        n_bytes = sum(x.nbytes for x in host)
        self._uploads.append((event, n_bytes))
        self._bytes_up += n_bytes
        while self._bytes_up > PINNED:
            done, n_bytes = self._uploads.popleft()
            done.synchronize()
            self._bytes_up -= n_bytes
        return event

    def wait(self, mark: torch.cuda.Event) -> None:
        torch.cuda.current_stream(self.device).wait_event(mark)

    def download(self, source: Tensor, target: Tensor, owner: object) -> None:
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        pinned = self.empty(source.shape, source.dtype)
        with torch.cuda.stream(self._down):
            pinned.copy_(source, non_blocking=True)
            event = self._down.record_event()
        source.record_stream(self._down)
        self._downloads.append(_Download(event, pinned, target, owner))
        self._bytes_down += pinned.nbytes
        while self._bytes_down > PINNED:
            self._finish()

    def settle(self, owner: object) -> None:
        while any(download.owner is owner for download in self._downloads):
            self._finish()

    def drain(self) -> None:
        while self._downloads and self._downloads[0].event.query():
            self._finish()

    def _finish(self) -> None:
        """Complete the oldest download."""
        download = self._downloads.popleft()
        download.event.synchronize()
        download.target.copy_(download.pinned)
        self._bytes_down -= download.pinned.nbytes


def make_staging(device: torch.device) -> Staging:
    """How units travel to and from a device.

    Asking early relies on lookups that choose the first of equal units, as Triton's do: else one of
    them might be looked up that was not asked for.
    """
    if device.type == "cuda" and takes_triton(torch.empty(0, device=device)):
        return _cuda_staging(device)
    return Staging()


@lru_cache
def _cuda_staging(device: torch.device) -> CudaStaging:
    """One for all layers and sessions of a device: they compute one after the other."""
    return CudaStaging(device)
