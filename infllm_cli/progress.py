"""Progress of reading, drawn on stderr when that is a terminal."""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from infllm.cli.output import Output
from infllm.cli.text import count, one_line, seconds, size


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory_bytes() -> int | None:
    """Memory that a program may still take without swapping; None where Linux does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


class Progress:
    """Counts tokens and draws `label 1,024 / 8,192 tokens  12%  8,725 tok/s  ETA ...  memory`.

    Off a terminal, or when quiet, it draws nothing and only counts; with -v and no terminal it
    prints a line every ten seconds, for log files. `memory` gives the bytes held by the engine.
    """

    LOG_EVERY = 10.0

    def __init__(
        self, out: Output, label: str, total: int, memory: Callable[[], int] | None = None
    ):
        self.out = out
        self.label = label
        self.total = total
        self.memory = memory or peak_memory_bytes
        self.done = 0
        self._skipped = 0
        self.started = 0.0
        self._logged = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "Progress":
        self.started = self._logged = time.monotonic()
        if self.out.live:
            self._bar, self._task = _bar(self.label, self.total)
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def skip(self, tokens: int) -> None:
        """Tokens that were done before: they count for the bar and not for the rate."""
        self.done += tokens
        self._skipped += tokens

    def advance(self, tokens: int) -> None:
        self.done += tokens
        now = time.monotonic()
        rate = (self.done - self._skipped) / max(now - self.started, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=self.done,
                rate=f"{rate:,.0f} tok/s",
                left=f"ETA {seconds(left)}" if self.done < self.total else "",
                memory=size(self.memory()),
            )
        elif self.out.verbose and now - self._logged >= self.LOG_EVERY:
            self._logged = now
            self.out.detail(
                f"{self.label} {count(self.done)} of {count(self.total)} tokens, "
                f"{rate:,.0f} tok/s, ETA {seconds(left)}, memory {size(self.memory())}"
            )

    def rename(self, label: str) -> None:
        self.label = label
        if self._bar is not None:
            self._bar.update(self._task, description=label)


def _bar(label: str, total: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress

    def text(field: str) -> TextColumn:
        return TextColumn(field, markup=False)

    bar = RichProgress(
        text("{task.description}"),
        BarColumn(bar_width=None),
        text("{task.completed:,} / {task.total:,} tokens"),
        text("{task.fields[rate]}"),
        text("{task.fields[left]}"),
        text("{task.fields[memory]}"),
        console=Console(stderr=True),
        transient=True,
        expand=True,
    )
    return bar, bar.add_task(label, total=total, rate="", left="", memory="")


class Spinner:
    """A line that says what is going on while nothing can be counted."""

    def __init__(self, out: Output, label: str):
        self.out = out
        self.label = label
        self._status: Any = None

    def __enter__(self) -> "Spinner":
        if self.out.live:
            from rich.console import Console
            from rich.text import Text

            self._status = Console(stderr=True).status(Text(self.label))
            self._status.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._status is not None:
            self._status.stop()

    def update(self, label: str) -> None:
        """May be called from any thread."""
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(one_line(label)))
