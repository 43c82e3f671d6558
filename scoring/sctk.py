"""NIST's SCTK programs, found and run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

# Debian keeps the programs out of PATH; its `sctk` command wraps them.
_DEBIAN_BIN = Path("/usr/lib/sctk/bin")


def sctk_command(tool: str) -> list[str]:
    """Return how to call an SCTK program; FileNotFoundError names the package to install."""
    path = shutil.which(tool) or shutil.which(tool, path=str(_DEBIAN_BIN))
    if path:
        return [path]
    wrapper = shutil.which("sctk")
    if wrapper:
        return [wrapper, tool]
    raise FileNotFoundError(f"{tool} is not installed: apt-get install sctk")


def run_sctk(tool: str, arguments: Sequence[str], folder: Path, stdin: Path | None = None) -> str:
    """Run an SCTK program in ``folder`` and return what it printed.

    RuntimeError holds its messages when it fails; what it wrote must still be checked, since
    these programs exit with 0 after many an error.
    """
    command = [*sctk_command(tool), *arguments]
    with (stdin or Path("/dev/null")).open("rb") as handle:
        done = subprocess.run(command, cwd=folder, stdin=handle, capture_output=True)
    printed = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        messages = (printed + done.stderr.decode("utf-8", "replace")).strip()[-2000:]
        status = f"signal {-done.returncode}" if done.returncode < 0 else f"{done.returncode}"
        raise RuntimeError(f"{tool} failed ({status}) in {folder}: {messages or 'no message'}")
    return printed
