"""What ends a worker process by itself: its CPU time used up, or its parent gone.

Both must hold while native code runs, which may neither return nor let another Python thread run.
So the system does it where it can: signals left at their default action, which ends a process.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.5  # between two looks at the parent


@contextmanager
def cpu_time(seconds: float) -> Iterator[None]:
    """Ends the process by SIGPROF after so much CPU time; nothing where there is no such timer."""
    if not hasattr(signal, "ITIMER_PROF"):
        yield
        return
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextmanager
def hangup_ends(pipe: int) -> Iterator[None]:
    """Ends the process by SIGIO when the other end of ``pipe``, its input, is closed.

    While a request is worked on nothing else can come in there. On Linux only: elsewhere SIGIO is
    ignored by default, and pipes of some sandboxes do not raise it; ``end_with_parent`` remains.
    """
    if not hasattr(signal, "SIGIO") or os.uname().sysname != "Linux":
        yield
        return
    import fcntl

    flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, flags | os.O_ASYNC)
    try:
        if _closed(pipe):  # before the signal was asked for
            os._exit(1)
        yield
    finally:
        fcntl.fcntl(pipe, fcntl.F_SETFL, flags)


def _closed(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, 0)  # hang-up is always reported
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def end_with_parent() -> None:
    """Ends the process soon after its parent has ended, however that was.

    By a thread: portable, but it waits for native code that holds the interpreter. (Linux can
    send a signal at the parent's death, but takes the end of the *thread* that started the
    process for it.)
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
