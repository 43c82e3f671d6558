"""Import NeMo without its noise, and without the network.

Each message is stopped where it is made: NeMo resets the level of its own logger whenever it
transcribes or restores a model, so a filter has to do it.
"""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

from systems.importing import nothing_to_collect


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def import_nemo() -> Any:
    """Return `nemo.collections.asr`, imported quietly; 7 to 25 s the first time."""
    nemo_logger = logging.getLogger("nemo_logger")
    if _is_error not in nemo_logger.filters:
        nemo_logger.addFilter(_is_error)
    for name in ("nv_one_logger", "lightning", "pytorch_lightning", "lightning_fabric", "torio"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("WANDB_SILENT", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with nothing_to_collect():
            import nemo.collections.asr as nemo_asr
    return nemo_asr
