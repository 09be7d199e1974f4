"""Worker processes for foreign parsers, bounded in time and memory.

PDF and HTML parsers are native code fed with files of unknown origin: they hang, crash and eat
memory. Each runs in a process of its own that can be killed; requests and answers are lines of
JSON over pipes. A worker bounds its own CPU time (a timer of the system ends it); what waits
without computing is killed by the parent, far later.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from typing import Any

from infllm.cli.documents.errors import ERRORS, Unreadable
from infllm.cli.documents.limits import Limits

# -P: the current folder, which may hold files of anybody, is not a place to import from.
COMMAND = (sys.executable, "-P", "-m", "infllm.cli.documents.worker_main")

GRACE_SECONDS = 5.0  # between the end of a worker's output and its own


class WorkerDied(Exception):
    """The worker ended without an answer: it crashed, or needed more memory than allowed."""


class WorkerTimeout(Exception):
    """No answer in time; the worker has ended."""


# What ends a worker that used up its CPU time; systems without it have the wall clock alone.
OUT_OF_TIME = getattr(signal, "SIGPROF", None)


class Worker:
    """One process, started at the first request and again after it was killed or died."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.cpu_seconds = 0.0  # of all requests that were answered
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._process is not None

    def ask(self, task: str, seconds: float, **request: Any) -> dict[str, Any]:
        """Answer to one request. Raises the DocumentError that the worker reports, WorkerTimeout
        after ``seconds`` of CPU time, or WorkerDied."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        timed_out = threading.Event()

        def expire() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(seconds * self.limits.wall_factor, expire)
        timer.start()
        try:
            asked = {"task": task, "cpu_seconds": seconds, **request}
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            status = self._end()
            if OUT_OF_TIME is not None and status == -OUT_OF_TIME:
                timed_out.set()
            if timed_out.is_set():
                self.cpu_seconds += seconds
                raise WorkerTimeout
            raise WorkerDied
        answer = json.loads(line)
        self.cpu_seconds += answer.pop("cpu_used", 0.0)
        if "error" in answer:
            raise ERRORS[answer["error"]](answer["message"], answer["hint"])
        return answer

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # closing flushes what a dead worker will not read

    def _end(self) -> int | None:
        """Exit status of a worker whose output has ended."""
        process = self._process
        if process is None:
            return None
        try:
            status = process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            status = None  # it closed its output and lives on
        self.close()
        return status

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            self._process = subprocess.Popen(
                [*COMMAND, str(self.limits.worker_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # parsers complain about every bent file
                start_new_session=True,  # Ctrl-C is for the parent, which then closes its workers
            )
        except OSError as error:
            raise Unreadable(f"cannot start a process to read documents in ({error})") from error
        return self._process
