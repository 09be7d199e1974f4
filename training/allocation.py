"""Memory allocation for training on a CPU."""

import ctypes
import os
import sys

# A step allocates and frees hundreds of megabytes. By default each buffer comes fresh from the
# kernel in 4 KiB pages; kept in the heap, in huge pages, a step takes a third less time.
_SETTINGS = {
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(10**11),
    "MALLOC_TOP_PAD_": str(10**9),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def restart_with_large_pages(module: str) -> None:
    """Start `python -m module` anew with the settings, which are read before Python runs.

    Does nothing in a process that has them already, or where the C library is another.
    """
    if sys.platform != "linux" or all(name in os.environ for name in _SETTINGS):
        return
    os.environ.update(_SETTINGS)
    os.execv(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]])


def give_back_free_pages() -> None:
    """Return what the heap holds and nobody uses to the system; else it grows by the hour, since
    no two steps ask for buffers of the same sizes."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
