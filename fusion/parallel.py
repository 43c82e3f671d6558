"""Work done by several processes, its results in order."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

MANY = 100  # utterances of dev: to fit on fewer, a second process takes longer than it saves


def in_order(function: Callable[[T], R], tasks: Iterable[T], jobs: int) -> Iterator[R]:
    """Yield what ``function`` makes of each task, in the order of the tasks.

    At most two tasks for each of ``jobs`` processes are in memory. A single task, or ``jobs`` 1,
    is done here. Functions and tasks are pickled.
    """
    tasks = iter(tasks)
    first = list(islice(tasks, 2))
    if jobs < 2 or len(first) < 2:
        yield from map(function, chain(first, tasks))
        return
    # Forking takes milliseconds, a fresh interpreter a third of a second; but a process that has
    # threads may fork while one of them holds a lock that nobody will ever release.
    method = "fork" if threading.active_count() == 1 and _forks() else "spawn"
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(jobs, context, collect_rarely) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for task in chain(first, tasks):
                waiting.append(pool.submit(function, task))
                if len(waiting) > 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def collect_rarely() -> None:
    """Let Python look for unreachable cycles less often: rows have none, but are many to visit."""
    gc.set_threshold(1 << 18)


def _forks() -> bool:
    return "fork" in multiprocessing.get_all_start_methods()


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
