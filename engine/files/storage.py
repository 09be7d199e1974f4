"""Every file operation of writing a memory, one function each: a test stops the writer at any.

Free of torch. These raise OSError; `memory_file` says what it means.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

FILE_MODE, FOLDER_MODE = 0o600, 0o700  # documents are private


def make_folder(path: Path) -> None:
    """A folder that only its owner may enter, and its name made durable."""
    path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    path.chmod(FOLDER_MODE)
    sync_folder(path.parent)


def create(path: Path) -> int:
    """A descriptor of a new file that only its owner may read."""
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)


def write(descriptor: int, data: Any) -> None:
    """Write all of a buffer."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def fsync(descriptor: int) -> None:
    """Bring a file's contents to the disk."""
    os.fsync(descriptor)


def close(descriptor: int) -> None:
    """Close a descriptor."""
    os.close(descriptor)


def replace(source: Path, target: Path) -> None:
    """Give a file its final name, in place of what had it."""
    os.replace(source, target)


def sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk."""
    if sys.platform == "win32":
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unlink(path: Path) -> None:
    """Remove a file, if it is there."""
    path.unlink(missing_ok=True)


def free_bytes(path: Path) -> int:
    """Bytes that may still be written where the folder `path` lies."""
    return shutil.disk_usage(path).free


def lock(path: Path) -> int | None:
    """A descriptor that holds the lock file `path`, None where another writer holds it.

    The lock ends with the descriptor, so that a writer's death leaves none behind.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, FILE_MODE)
    try:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
