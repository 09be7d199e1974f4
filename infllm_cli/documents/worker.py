"""Worker processes for foreign parsers, bounded in time and memory.

PDF and HTML parsers are native code fed with files of unknown origin: they hang, crash and eat
memory. Each runs in a process of its own that can be killed; requests and answers are lines of
JSON over pipes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

from infllm.cli.documents.errors import ERRORS, Unreadable
from infllm.cli.documents.limits import Limits

# -P: the current folder, which may hold files of anybody, is not a place to import from.
COMMAND = (sys.executable, "-P", "-m", "infllm.cli.documents.worker_main")


class WorkerDied(Exception):
    """The worker ended without an answer: it crashed, or needed more memory than allowed."""


class WorkerTimeout(Exception):
    """No answer in time; the worker was killed."""


class Worker:
    """One process, started at the first request and again after it was killed or died."""

    def __init__(self, limits: Limits):
        self.limits = limits
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
        after ``seconds``, or WorkerDied."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        timed_out = threading.Event()

        def expire() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(seconds, expire)
        timer.start()
        try:
            process.stdin.write(json.dumps({"task": task, **request}).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            self.close()
            raise WorkerTimeout if timed_out.is_set() else WorkerDied
        answer = json.loads(line)
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
