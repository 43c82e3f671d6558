"""What every recogniser's audio passes before any model sees it.

Mono float32 in [-1, 1] at 16 kHz, finite, at least 0.1 s; silence is told apart by its energy;
audio longer than a model's window is cut at quiet points. Every toolkit was seen to return
confident nonsense for what this catches. Pure NumPy, so that every step can be tested bare.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifests import Seconds, Utterance
from manifests.audio import SAMPLE_RATE, Samples, load_audio

MIN_SECONDS: Seconds = 0.1
"""Shorter audio is padded with zeros: most encoders crash on a frame or two."""

FRAME_SECONDS: Seconds = 0.02
"""Of one level: about two pitch periods of the deepest voice."""

_FRAME = SAMPLE_RATE // 50
_LOUD_FRAMES = 3  # 60 ms: a click is shorter, the shortest vowel is longer
_QUIET = 10  # frames (0.2 s): how long a pause must be to count fully as one
_SILENT_DBFS = -120.0


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of one utterance that fits a model: ``samples`` begin ``start`` s into it."""

    utterance: Utterance
    index: int  # among the utterance's windows
    start: Seconds
    seconds: Seconds  # of audio; below 0.1 s ``samples`` go on with zeros
    samples: Samples
    silent: bool = False  # too quiet to hold speech; no model needs to hear it


def read_windows(
    utterance: Utterance, max_seconds: Seconds, silence_dbfs: float = -55.0
) -> list[Window]:
    """Load an utterance and return its windows in order, at least one, none above ``max_seconds``.

    They cover all of the audio without overlap. A file that ends before the stated duration is
    heard as far as it goes. Raises `manifests.audio.AudioError` for what cannot be heard at all.
    """
    samples = load_audio(
        utterance.audio_filepath, utterance.offset, utterance.duration, partial=True
    )
    return [
        Window(
            utterance=utterance,
            index=index,
            start=first / SAMPLE_RATE,
            seconds=(last - first) / SAMPLE_RATE,
            samples=pad(samples[first:last]),
            silent=is_silent(samples[first:last], silence_dbfs),
        )
        for index, (first, last) in enumerate(cut(samples, max_seconds))
    ]


def pad(samples: Samples, seconds: Seconds = MIN_SECONDS) -> Samples:
    """Return ``samples`` with zeros behind them up to ``seconds``.

    >>> len(pad(np.ones(800, np.float32)))
    1600
    """
    missing = round(seconds * SAMPLE_RATE) - len(samples)
    return np.pad(samples, (0, missing)) if missing > 0 else samples


def levels(samples: Samples) -> npt.NDArray[np.float32]:
    """Return the level of each 20 ms frame in dB below full scale, shape (n_frames,).

    A constant offset of the whole recording counts as silence; the last frame may be short.
    """
    if not len(samples):
        return np.zeros(0, np.float32)
    power = np.square(samples - samples.mean(dtype=np.float64), dtype=np.float32)
    starts = np.arange(0, len(samples), _FRAME)
    sizes = np.minimum(len(samples) - starts, _FRAME)
    mean = np.add.reduceat(power, starts) / sizes
    decibels = 10 * np.log10(np.maximum(mean, 10 ** (_SILENT_DBFS / 10)))
    return np.asarray(decibels, np.float32)


def is_silent(samples: Samples, silence_dbfs: float = -55.0) -> bool:
    """Tell whether fewer than three frames (one, below 0.1 s) exceed ``silence_dbfs``.

    >>> is_silent(np.zeros(16000, np.float32))
    True
    """
    loud = int((levels(samples) > silence_dbfs).sum())
    needed = _LOUD_FRAMES if len(samples) >= MIN_SECONDS * SAMPLE_RATE else 1
    return loud < needed


def cut(samples: Samples, max_seconds: Seconds) -> list[tuple[int, int]]:
    """Return consecutive (first, last) samples of windows of at most ``max_seconds``.

    Each cut lies in the quietest 0.2 s of the second half of what a window could hold, so no
    word is halved where there is a pause; no rest shorter than a quarter window is left over.

    >>> cut(np.zeros(48000, np.float32), 30.0)
    [(0, 48000)]
    """
    longest = int(max_seconds * SAMPLE_RATE)
    if longest < 4 * _FRAME:
        raise ValueError(f"window is {max_seconds:g} s, must be at least 0.08 s")
    if len(samples) <= longest:
        return [(0, len(samples))]
    quietness = _smooth(levels(samples))
    windows = []
    first = 0
    while len(samples) - first > longest:
        latest = min(first + longest, len(samples) - longest // 4)
        frames = np.arange((first + longest // 2) // _FRAME + 1, latest // _FRAME + 1)
        # Among equally quiet places the latest: fewer windows.
        at = int(frames[::-1][np.argmin(quietness[frames][::-1])]) * _FRAME
        windows.append((first, at))
        first = at
    windows.append((first, len(samples)))
    return windows


def _smooth(decibels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the mean level of the 0.2 s around the start of each frame, shape (n_frames + 1,)."""
    half = _QUIET // 2
    padded = np.pad(decibels, half, mode="edge")
    sums = np.cumsum(np.concatenate(([0.0], padded)))
    mean = (sums[_QUIET:] - sums[:-_QUIET]) / _QUIET
    return np.asarray(np.round(mean, 3), np.float32)  # so that equal silence compares equal
