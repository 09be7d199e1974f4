"""Copies of memory units between host and device, beside the computing that goes on."""

from __future__ import annotations

import ctypes
import mmap
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from threading import Lock, RLock
from typing import Any

import torch
from torch import Tensor

from infllm.kernels.dispatch import takes_triton

HOST = torch.device("cpu")
PINNED = 2**28  # bytes of pinned memory in flight, at most, each way


class Staging:
    """Copies that are done when they are asked for: all that a CPU needs.

    What is asked for need not be done on return, in a class below; `wait`, `settle` say when it is.
    """

    ahead = False  # whether it pays to ask early

    def __init__(self, device: torch.device = HOST) -> None:
        self.device = device

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A host tensor for `upload`."""
        return torch.empty(tuple(shape), dtype=dtype)

    def arena(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A large host tensor that will be written once, from its beginning on. What is not written
        costs address space, and no memory."""
        return torch.empty(tuple(shape), dtype=dtype)

    def ask(self, values: Tensor) -> Callable[[], Any]:
        """What gives a device tensor's values as lists: the host waits for them when it is called,
        and what the device was told meanwhile goes on."""
        return values.tolist

    def begin(self, *targets: Tensor) -> None:
        """Uploads from now on come after all that the device was told so far, and may write to
        `targets`, which live as long as any of them."""

    def upload(self, host: Sequence[Tensor], put: Callable[..., object]) -> Any:
        """Bring host tensors from `empty` to the device and call `put` with them there.

        Returns a mark for `wait`.
        """
        put(*(x.to(self.device) for x in host))
        return None

    def upload_later(
        self, gather: Callable[[], Sequence[Tensor]], put: Callable[..., object]
    ) -> Any:
        """`upload` of what `gather` gives, both perhaps in another thread, one after the other.

        What they raise, `wait` raises.
        """
        return self.upload(gather(), put)

    def wait(self, mark: Any) -> None:
        """What the device is told from now on comes after the upload that gave `mark`."""

    def download(self, source: Tensor, target: Tensor, owner: object) -> None:
        """Copy a device tensor to `target` on the host, which `settle(owner)` completes."""
        target.copy_(source)

    def settle(self, owner: object) -> None:
        """All downloads for `owner` are in their targets on return."""

    def drain(self) -> None:
        """Let downloads that have come in meanwhile go to their targets; waits for none."""


class Threads:
    """Work of the host beside the thread that tells the device what to do: one thread for what goes
    up, one for what comes down, each doing one piece after the other."""

    def __init__(self) -> None:
        self._up = ThreadPoolExecutor(1, thread_name_prefix="infllm-up")
        self._down = ThreadPoolExecutor(1, thread_name_prefix="infllm-down")
        self._lock = Lock()
        self._coming: dict[int, deque[Future[None]]] = {}  # by the owner's identity, in order

    def up(self, run: Callable[[], Any]) -> Future[Any]:
        """Do this in its turn."""
        return self._up.submit(run)

    def down(self, run: Callable[[], None], owner: object) -> Future[None]:
        """Do this in its turn; `settle(owner)` waits for it."""

        def keeping() -> None:
            _ = owner  # whose identity must stay its own
            run()

        with self._lock:
            future = self._down.submit(keeping)
            coming = self._coming.setdefault(id(owner), deque())
            while coming and coming[0].done() and coming[0].exception() is None:
                coming.popleft()
            coming.append(future)
        return future

    def settle(self, owner: object) -> None:
        """What is under way for `owner` is done on return; raises what it raised."""
        while True:
            with self._lock:
                coming = self._coming.get(id(owner))
                if not coming:
                    self._coming.pop(id(owner), None)
                    return
                first = coming[0]
            first.result()
            with self._lock:
                if coming and coming[0] is first:
                    coming.popleft()


class CudaStaging(Staging):
    """A stream of its own for each way, through pinned memory of bounded size.

    torch's allocator of pinned memory reuses a buffer only when its copies are done. What the host
    copies, and the page faults of memory that is written first, are the affair of two threads.
    """

    ahead = True

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._up = torch.cuda.Stream(device)
        self._down = torch.cuda.Stream(device)
        self._threads = Threads()
        self._uploads: deque[tuple[torch.cuda.Event, int]] = deque()
        self._downloads: deque[tuple[Future[None], int]] = deque()
        self._bytes_up = self._bytes_down = 0
        self._lock = RLock()

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)

    def arena(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return with_huge_pages(super().arena(shape, dtype))

    def ask(self, values: Tensor) -> Callable[[], Any]:
        pinned = self.empty(values.shape, values.dtype)
        pinned.copy_(values, non_blocking=True)
        event = torch.cuda.current_stream(self.device).record_event()

        def given() -> Any:
            event.synchronize()
            return pinned.tolist()

        return given

    def begin(self, *targets: Tensor) -> None:
        self._up.wait_stream(torch.cuda.current_stream(self.device))
        for target in targets:
            target.record_stream(self._up)

    def upload(self, host: Sequence[Tensor], put: Callable[..., object]) -> torch.cuda.Event:
        n_bytes = sum(x.nbytes for x in host)
        with self._lock:
            with torch.cuda.stream(self._up):
                put(*(x.to(self.device, non_blocking=True) for x in host))
                event = self._up.record_event()
            self._uploads.append((event, n_bytes))
            self._bytes_up += n_bytes
            while self._bytes_up > PINNED:
                done, n_bytes = self._uploads.popleft()
                done.synchronize()
                self._bytes_up -= n_bytes
        return event

    def upload_later(
        self, gather: Callable[[], Sequence[Tensor]], put: Callable[..., object]
    ) -> Future[torch.cuda.Event]:
        def run() -> torch.cuda.Event:
            with torch.no_grad(), torch.cuda.device(self.device):
                return self.upload(gather(), put)

        return self._threads.up(run)

    def wait(self, mark: torch.cuda.Event | Future[torch.cuda.Event]) -> None:
        event = mark.result() if isinstance(mark, Future) else mark
        torch.cuda.current_stream(self.device).wait_event(event)

    def download(self, source: Tensor, target: Tensor, owner: object) -> None:
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        pinned = self.empty(source.shape, source.dtype)
        with torch.cuda.stream(self._down):
            pinned.copy_(source, non_blocking=True)
            event = self._down.record_event()
        source.record_stream(self._down)

        def finish() -> None:
            event.synchronize()
            with torch.no_grad():
                target.copy_(pinned)

        future = self._threads.down(finish, owner)
        self._downloads.append((future, pinned.nbytes))
        self._bytes_down += pinned.nbytes
        while self._bytes_down > PINNED:
            done, n_bytes = self._downloads.popleft()
            done.result()
            self._bytes_down -= n_bytes

    def settle(self, owner: object) -> None:
        self._threads.settle(owner)

    def drain(self) -> None:
        while self._downloads and self._downloads[0][0].done():
            done, n_bytes = self._downloads.popleft()
            done.result()
            self._bytes_down -= n_bytes


HUGE = 2**21  # bytes of a huge page on the systems that torch's GPU builds are for


def with_huge_pages(memory: Tensor) -> Tensor:
    """`memory`, untouched, in huge pages where the system gives them: fewer faults when it is
    written. Without, it stays as it is."""
    first = -(-memory.data_ptr() // HUGE) * HUGE
    n_bytes = (memory.data_ptr() + memory.nbytes - first) // HUGE * HUGE
    if n_bytes > 0 and hasattr(mmap, "MADV_HUGEPAGE"):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(n_bytes), mmap.MADV_HUGEPAGE)
    return memory


def make_staging(device: torch.device) -> Staging:
    """How units travel to and from a device.

    Asking early relies on lookups that choose the first of equal units, as Triton's do: else one of
    them might be looked up that was not asked for.
    """
    if device.type == "cuda" and takes_triton(torch.empty(0, device=device)):
        return _cuda_staging(device)
    return Staging(device)


@lru_cache
def _cuda_staging(device: torch.device) -> CudaStaging:
    """One for all layers and sessions of a device: they compute one after the other."""
    return CudaStaging(device)
