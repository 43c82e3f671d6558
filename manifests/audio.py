"""Decode any file that libsndfile reads to mono float32 at one rate.

Everything that hears audio (preparation, validation, every recogniser) comes through
`load_audio`, so a damaged file is always an `AudioError` and never a confident nonsense.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from manifests.rows import Seconds

Samples: TypeAlias = npt.NDArray[np.float32]
"""Mono audio in [-1, 1], shape (n_samples,)."""

SAMPLE_RATE = 16_000
"""Hz: what every recogniser takes."""

DURATION_TOLERANCE: Seconds = 0.1
"""How far a stated duration may lie from the audio's."""

# A header may claim any length (libsndfile gives 2**63 - 1 for an Ogg stream without an end);
# what is above 1 GiB of float32 is read in blocks. Not all is: soundfile seeks after every
# read, and a seek in an MP3 file costs the samples whose bits lie in the frames before.
_MAX_AT_ONCE = 1 << 28
_BLOCK_FRAMES = 1 << 16
_MPEG_PREROLL = 10 * 1152  # frames of samples to decode ahead of a segment, then dropped

# libsndfile shortens a WAV or AIFF file that was cut off without an error, and says so only
# in its log. (A recorder that streams leaves the size at 0 or near 2**31 or 2**32.)
_CUT_CHUNK = re.compile(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
_MAX_STATED_BYTES = 0x7FFF0000
_CUT_OGG = re.compile(r"lacks an end-of-stream bit[^\n]*\n[^\n]*Junk after the last page")


class AudioError(ValueError):
    """Audio that is missing, damaged or empty; the message is ``path: value, rule``."""


def load_audio(
    path: str | Path,
    offset: Seconds = 0.0,
    duration: Seconds | None = None,
    rate: int = SAMPLE_RATE,
    *,
    partial: bool = False,
) -> Samples:
    """Return ``duration`` seconds (None: to the end) from ``offset`` on, shape (n_samples,).

    Channels are averaged, other rates resampled (soxr, HQ), and audio that peaks above 1
    (floating-point files, overshoot of the resampler) is scaled down to 1, never clipped.

    Raises `AudioError` when the file is missing, undecodable or empty, holds NaN or infinity,
    or ends more than 0.1 s before the asked-for end, or before the length its header states
    when read to its end. With ``partial`` audio that ends early is returned as far as it goes.
    """
    if not 0 <= offset < math.inf:
        raise AudioError(f"{path}: offset is {offset:g} s, must be >= 0")
    if duration is not None and not 0 < duration < math.inf:
        raise AudioError(f"{path}: duration is {duration:g} s, must be > 0")
    try:
        with soundfile.SoundFile(path) as file:
            samples, source_rate = _read(file, path, offset, duration, partial), file.samplerate
    except AudioError:
        raise
    except Exception as error:  # a decoder's own surprise: TypeError, AssertionError, MemoryError
        raise AudioError(f"{path}: {_reason(Path(path), error)}") from None
    low, high = float(samples.min()), float(samples.max())
    if not math.isfinite(low + high):
        raise AudioError(f"{path}: audio holds NaN or infinity, must be finite")
    if source_rate != rate:
        samples = soxr.resample(samples, source_rate, rate)
        if not len(samples):
            raise AudioError(f"{path}: 0 samples at {rate} Hz, must be at least one")
        low, high = float(samples.min()), float(samples.max())
    peak = max(-low, high)
    if peak > 1:
        samples /= np.float32(peak)
        np.clip(samples, -1, 1, out=samples)  # the quotient may round to just above 1
    return samples


def audio_duration(path: str | Path) -> Seconds:
    """Return the length that the header states, without decoding (`AudioError` as above).

    Infinity when the container states none.
    """
    try:
        info = soundfile.info(str(path))
    except Exception as error:
        raise AudioError(f"{path}: {_reason(Path(path), error)}") from None
    return info.frames / info.samplerate if _states_length(info.frames) else math.inf


def _read(
    file: soundfile.SoundFile,
    path: str | Path,
    offset: Seconds,
    duration: Seconds | None,
    partial: bool,
) -> Samples:
    """Return mono samples at the file's own rate, at least one."""
    first = round(offset * file.samplerate)
    known = _states_length(file.frames)
    if known and first >= file.frames:
        if not file.frames:
            raise AudioError(f"{path}: 0 samples, must be at least one")
        end = file.frames / file.samplerate
        raise AudioError(f"{path}: offset is {offset:g} s, must lie before the end at {end:.3f} s")
    preroll = min(first, _MPEG_PREROLL) if file.subtype.startswith("MPEG") else 0
    wanted: int | None = None
    if duration is not None:
        wanted = max(round(duration * file.samplerate), 1)
    elif known:
        wanted = file.frames - first
    if duration is None and not partial and (cut := _cut_off(file)):
        raise AudioError(f"{path}: {cut}")
    asked = None if wanted is None else wanted + preroll
    samples = _mono(file, first - preroll, asked, partial)[preroll:]
    if not len(samples):
        raise AudioError(f"{path}: 0 samples from {offset:g} s on, must be at least one")
    if wanted is not None and not partial:
        missing = (wanted - len(samples)) / file.samplerate
        if missing > DURATION_TOLERANCE:
            has, must = len(samples) / file.samplerate, wanted / file.samplerate
            raise AudioError(f"{path}: audio ends after {has:.3f} s, must last {must:.3f} s")
    return samples


def _mono(file: soundfile.SoundFile, first: int, wanted: int | None, partial: bool) -> Samples:
    """Return up to ``wanted`` frames (None: all there are) from ``first`` on, channels averaged."""
    if wanted is not None and wanted * file.channels <= _MAX_AT_ONCE:
        try:
            return _averaged(file, first, wanted)
        except soundfile.SoundFileError:
            if not partial:
                raise
    blocks: list[Samples] = []
    # Opened again: after an error a decoder may not find its place.
    with soundfile.SoundFile(file.name) as again:
        while wanted is None or wanted > 0:
            asked = min(wanted or _BLOCK_FRAMES, _BLOCK_FRAMES)
            try:
                blocks.append(_averaged(again, first, asked))
            except soundfile.SoundFileError:
                if partial and blocks:
                    break
                raise
            first += asked
            wanted = None if wanted is None else wanted - asked
            if len(blocks[-1]) < asked:
                break
    return np.concatenate(blocks)


def _averaged(file: soundfile.SoundFile, first: int, frames: int) -> Samples:
    if file.tell() != first:
        file.seek(first)
    block: Samples = file.read(frames, dtype="float32", always_2d=True)
    return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)


def _cut_off(file: soundfile.SoundFile) -> str | None:
    """Return how an open file is known to have lost its end."""
    if (chunk := _CUT_CHUNK.search(file.extra_info)) is not None:
        stated, there = map(int, chunk.groups())
        lost = (stated / max(there, 1) - 1) * file.frames / file.samplerate
        if lost > DURATION_TOLERANCE and stated < _MAX_STATED_BYTES:
            return f"{there} bytes of audio, must be {stated} as the header states"
    if _CUT_OGG.search(file.extra_info):
        return "last page is torn, must be a complete Ogg stream"
    return None


def _states_length(frames: int) -> bool:
    return frames < 1 << 62


def _reason(path: Path, error: Exception) -> str:
    try:
        if not path.exists():
            return "no such file, must exist"
        if not path.is_file():
            return "not a file, must be an audio file"
        if not path.stat().st_size:
            return "0 bytes, must hold audio"
    except OSError as unreachable:  # a name too long, a folder that may not be entered
        return f"{unreachable.strerror}, must be readable"
    text = str(error).rpartition(": ")[2].rstrip(".") or type(error).__name__
    return f"cannot be decoded ({text}), must be audio"
