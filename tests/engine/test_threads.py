"""The threads that copy units, and the memory that copies lie in."""

from __future__ import annotations

from threading import Event

import pytest
import torch

from infllm.engine.units.staging import Threads, with_huge_pages


def test_what_a_thread_raises_is_raised_where_it_is_waited_for() -> None:
    threads, owner, done = Threads(), object(), []

    def fails() -> None:
        raise OSError("no such row")

    mark = threads.up(fails)
    threads.up(lambda: done.append("up")).result()  # the next piece is done all the same
    with pytest.raises(OSError, match="no such row"):
        mark.result()
    threads.down(lambda: done.append("down"), owner)
    threads.down(fails, owner)
    with pytest.raises(OSError, match="no such row"):
        threads.settle(owner)
    assert done == ["up", "down"]


def test_settling_waits_for_one_owner_alone() -> None:
    threads, first, second = Threads(), object(), object()
    free, done = Event(), []
    threads.down(lambda: done.append(1), first)
    threads.down(lambda: free.wait(10) and done.append(2), second)
    threads.settle(first)
    assert done == [1]
    free.set()
    threads.settle(second)
    assert done == [1, 2]
    threads.settle(first)


def test_huge_pages_are_asked_for_where_there_is_room() -> None:
    """It holds what is written, whether the system gives them or not."""
    for n in (1, 2**21, 5 * 2**21 + 3):
        memory = with_huge_pages(torch.empty(n, dtype=torch.uint8))
        memory.fill_(7)
        assert int(memory.sum()) == 7 * n
