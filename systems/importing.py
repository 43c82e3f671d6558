"""Importing toolkits of thousands of modules sooner."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def nothing_to_collect() -> Iterator[None]:
    """Pause the search for unreachable cycles while toolkits and models are loaded.

    What they make are a million objects that stay: to look through them again and again is a
    fifth of an import.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
