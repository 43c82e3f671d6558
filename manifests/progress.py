"""When long work shows a bar: at a terminal, never in a log."""

from __future__ import annotations

import os
import sys


def bars_wanted() -> bool:
    """Return whether stderr is a terminal, or a pipe to one (`run.sh` then says so)."""
    return sys.stderr.isatty() or os.environ.get("CHILDRENS_ASR_PROGRESS") == "1"
