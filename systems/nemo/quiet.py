"""Import NeMo without its noise, without the network, and without a compiler.

Each message is stopped where it is made: NeMo resets the level of its own logger whenever it
transcribes or restores a model, so a filter has to do it.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from systems.importing import nothing_to_collect


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def import_nemo() -> Any:
    """Return `nemo.collections.asr`, imported quietly; 5 to 25 s the first time."""
    if "nemo.collections.asr" in sys.modules:
        return sys.modules["nemo.collections.asr"]
    nemo_logger = logging.getLogger("nemo_logger")
    if _is_error not in nemo_logger.filters:
        nemo_logger.addFilter(_is_error)
    for name in ("nv_one_logger", "lightning", "pytorch_lightning", "lightning_fabric", "torio"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("WANDB_SILENT", "true")
    with warnings.catch_warnings(), nothing_to_collect():
        warnings.simplefilter("ignore")
        # First, since each puts a function of its own over torch.compile. NeMo imports both.
        import lightning.pytorch  # noqa: F401
        import pytorch_lightning  # noqa: F401

        with _compiling_later():
            import nemo.collections.asr as nemo_asr
    return nemo_asr


@contextmanager
def _compiling_later() -> Iterator[None]:
    """Let `torch.compile` wait for the first call of what it is given, until the block ends.

    NeMo compiles one function while it is imported, which loads all of torch's compiler.
    """
    import torch

    compile_now = torch.compile
    torch.compile = functools.partial(_later, compile_now)
    try:
        yield
    finally:
        torch.compile = compile_now


def _later(compile_now: Callable[..., Any], function: Any = None, **options: Any) -> Any:
    if function is None:  # a decorator with options
        return functools.partial(_later, compile_now, **options)

    @functools.cache
    def compiled() -> Any:
        return compile_now(function, **options)

    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> Any:
        return compiled()(*values, **named)

    return call
