"""Set-up: what it says when it may not install, and that a second call does nothing."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def setup(path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["recipes/setup.sh"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        timeout=300,
    )


def test_without_root_it_prints_the_apt_line_and_stops(tmp_path):
    for name, script in {"id": "echo 1000", "dpkg-query": "exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    stopped = setup(f"{tmp_path}:{os.environ['PATH']}")
    assert stopped.returncode == 1
    assert len(stopped.stderr.splitlines()) == 1
    assert "sudo apt-get install -y --no-install-recommends sctk espeak-ng" in stopped.stderr


def test_a_second_call_says_and_does_nothing():
    again = setup(os.environ["PATH"])
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
