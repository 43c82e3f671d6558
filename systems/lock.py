"""One process at a time: two that write one file would lose or double each other's rows."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO, Self


class OnlyOne:
    """Holds the lock file ``path`` until it is closed, or the process ends, however it ends.

    ValueError, which names ``what`` is locked, when another process holds it. Where the file
    system knows no locks, nothing is locked.
    """

    def __init__(self, path: Path, what: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = _locked(path, what)
        # Between opening and locking its last holder may have deleted it: then it locks nothing.
        while not os.fstat(self._file.fileno()).st_nlink:
            self._file.close()
            self._file = _locked(path, what)

    def close(self) -> None:
        """Let others have it."""
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _locked(path: Path, what: Path) -> BinaryIO:
    file = path.open("ab")
    try:
        # Not flock: processes that read audio would inherit it and outlive a kill.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # systems differ in which it is
        file.close()
        raise ValueError(f"{what}: another process is writing it, must be one at a time") from None
    except OSError:
        pass
    return file
