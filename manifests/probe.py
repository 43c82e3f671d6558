"""How long audio files are, read from their headers, in parallel."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from manifests.rows import Seconds

# A cut-off FLAC or MP3 file still states its old length; libsndfile corrects WAV and Ogg.
_PROMISING = (".flac", ".mp3")
_TAIL: Seconds = 0.01


class Probe(NamedTuple):
    """The length of one audio file, or why there is none."""

    duration: Seconds = 0.0  # infinite where the container states none
    problem: str | None = None  # "value, rule"


def probe(path: str) -> Probe:
    """Return the length of one audio file; never raises for what is wrong with it.

    Only headers are read, and the last samples where a header may promise too much.
    """
    # Deferred: loads libsndfile and numpy, which --help does not need.
    from manifests.audio import AudioError, audio_duration, load_audio

    try:
        duration = audio_duration(path)
        if not duration:
            return Probe(problem="0 samples, must be at least one")
        if path.lower().endswith(_PROMISING) and duration != float("inf"):
            load_audio(path, max(duration - _TAIL, 0.0), min(_TAIL, duration))
    except AudioError as error:
        return Probe(problem=str(error).removeprefix(f"{path}: "))
    return Probe(duration)


def probe_all(paths: Iterable[str], jobs: int | None = None) -> dict[str, Probe]:
    """Return `probe` of every path; each file is opened once, ``jobs`` (all cores) at a time."""
    unique = list(dict.fromkeys(paths))
    jobs = jobs or os.cpu_count() or 1
    if jobs == 1 or len(unique) < 2:
        return {path: probe(path) for path in unique}
    # Threads suffice: libsndfile works outside the interpreter's lock.
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(unique, pool.map(probe, unique), strict=True))
