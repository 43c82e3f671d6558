"""Work that several processes do."""

from __future__ import annotations

import os
import threading

import pytest

from fusion.parallel import in_order


def whoami(task: int) -> tuple[int, int]:
    return task, os.getpid()


def test_work_is_done_by_others_and_comes_back_in_order() -> None:
    found = list(in_order(whoami, range(50), 3))
    assert [task for task, _ in found] == list(range(50))
    assert os.getpid() not in {process for _, process in found}
    assert list(in_order(whoami, range(3), 1)) == [(n, os.getpid()) for n in range(3)]
    assert list(in_order(whoami, [7], 3)) == [(7, os.getpid())]


def test_a_process_with_threads_does_not_fork() -> None:
    """It could hold a lock that a thread had, for ever."""
    waiting = threading.Event()
    thread = threading.Thread(target=waiting.wait)
    thread.start()
    try:
        assert list(in_order(abs, [-1, -2, -3], 2)) == [1, 2, 3]
    finally:
        waiting.set()
        thread.join()


def explode(task: int) -> int:
    raise ValueError(f"task {task}")


def test_an_error_of_a_process_arrives() -> None:
    with pytest.raises(ValueError, match="task 0"):
        list(in_order(explode, range(20), 2))
