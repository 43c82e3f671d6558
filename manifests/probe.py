"""How long audio files are, read from their headers, in parallel."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from manifests.rows import Seconds

DURATION_TOLERANCE: Seconds = 0.1  # codecs pad and corpora round

# Their headers promise a length that a truncated file does not have; libsndfile corrects it
# for WAV and Ogg by itself.
_PROMISING = ("FLAC", "MP3", "MPEG")


class Probe(NamedTuple):
    """The length of one audio file, or why there is none."""

    duration: Seconds = 0.0
    problem: str | None = None  # a rule without its value: "must exist", ...


def probe(path: str | Path) -> Probe:
    """Return the length of one audio file; never raises.

    Only headers are read, and the last sample where a header may promise too much.
    """
    # Deferred: loads libsndfile and numpy, which --help does not need.
    import soundfile

    if not os.path.exists(path):  # noqa: PTH110 (a million of them: half the time of Path)
        return Probe(problem="must exist")
    try:
        with soundfile.SoundFile(path) as audio:
            frames, rate = audio.frames, audio.samplerate
            if frames and audio.format in _PROMISING:
                audio.seek(frames - 1)
                if len(audio.read(1, dtype="float32")) == 0:
                    return Probe(problem="must be whole, its last sample is missing")
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        return Probe(problem=f"must be readable audio: {reason}")
    except Exception as error:  # a decoder's own surprise, such as a bare AssertionError
        return Probe(problem=f"must be readable audio: {type(error).__name__} {error}".rstrip())
    if not frames:
        return Probe(problem="must hold samples, has none")
    return Probe(duration=frames / rate)


def probe_all(paths: Iterable[str], jobs: int | None = None) -> dict[str, Probe]:
    """Return `probe` of every path; each file is opened once, ``jobs`` (cores) at a time."""
    unique = list(dict.fromkeys(paths))
    jobs = jobs or os.cpu_count() or 1
    if jobs == 1 or len(unique) < 2:
        return {path: probe(path) for path in unique}
    # Threads suffice: libsndfile works outside the interpreter's lock.
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(unique, pool.map(probe, unique), strict=True))
