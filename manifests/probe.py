"""How long audio files are, and whether rows agree: headers read in parallel."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from manifests.rows import Seconds

# A cut-off FLAC or MP3 file still states its old length; libsndfile corrects WAV and Ogg.
_PROMISING = (".flac", ".mp3")
_TAIL: Seconds = 0.01
_ROUNDING: Seconds = 1e-6


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
        if path.lower().endswith(_PROMISING) and math.isfinite(duration):
            load_audio(path, max(duration - _TAIL, 0.0), min(_TAIL, duration))
    except AudioError as error:
        return Probe(problem=str(error).removeprefix(f"{path}: "))
    return Probe(duration)


def probe_all(paths: Iterable[str], jobs: int | None = None) -> dict[str, Probe]:
    """Return `probe` of every path, each opened once, ``jobs`` (None: all cores) at a time."""
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}, must be > 0")
    unique = list(dict.fromkeys(paths))
    jobs = jobs or os.cpu_count() or 1
    if jobs == 1 or len(unique) < 2:
        return {path: probe(path) for path in unique}
    # Threads suffice: libsndfile works outside the interpreter's lock.
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(unique, pool.map(probe, unique), strict=True))


def audio_fault(
    probe: Probe, path: str, offset: Seconds | None, duration: Seconds | None, segmented: bool
) -> str | None:
    """Return how a row disagrees with its audio, as "value, rule".

    A row without an offset is the whole file, unless the file is ``segmented``.
    """
    # Deferred: loads libsndfile and numpy, which --help does not need.
    from manifests.audio import DURATION_TOLERANCE

    if probe.problem:
        return f"audio_filepath {path!r}: {probe.problem}"
    if offset is None or math.isinf(probe.duration):
        return None
    length, tolerance = probe.duration, DURATION_TOLERANCE + _ROUNDING
    if offset >= length:
        return f"offset is {offset:g} s, must lie inside the audio ({length:g} s)"
    if duration is None:
        return None
    if offset and offset + duration > length + tolerance:
        end = offset + duration
        return f"offset + duration is {end:g} s, must lie inside the audio ({length:g} s)"
    too_long = duration > length + tolerance
    too_short = offset == 0 and not segmented and duration < length - tolerance
    if too_long or too_short:
        return f"duration is {duration:g} s, must be the audio's {length:g} s to within 0.1 s"
    return None


def agreed_duration(
    probe: Probe, path: str, offset: Seconds, duration: Seconds | None, segmented: bool
) -> Seconds:
    """Return ``duration`` where it agrees with the audio, else what is left from ``offset`` on.

    Raises ValueError where nothing is, or nobody says how much.
    """
    fault = audio_fault(probe, path, offset, duration, segmented)
    if fault and (probe.problem or offset >= probe.duration):
        raise ValueError(fault)
    if duration is not None and not fault:
        return duration
    if math.isinf(probe.duration):
        raise ValueError(f"audio_filepath {path!r}: states no length, must come with a duration")
    return round(probe.duration - offset, 6)
