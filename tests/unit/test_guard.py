"""The audio guard, bare."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import Utterance
from manifests.audio import AudioError
from systems.guard import cut, is_silent, levels, pad, read_windows

RATE = 16_000


def tone(seconds: float, level: float = 0.1) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def test_levels_are_decibels_below_full_scale() -> None:
    full = tone(0.1, 1.0)
    assert levels(full) == pytest.approx(-3.01, abs=0.1)
    assert levels(0.1 * full) == pytest.approx(-23.01, abs=0.1)
    assert levels(np.full(1600, 0.5, np.float32)).max() < -100  # an offset is no sound


def test_silence_is_told_from_speech_and_clicks_from_both() -> None:
    assert is_silent(np.zeros(RATE, np.float32))
    assert is_silent(tone(1.0, 1e-4))
    assert not is_silent(tone(1.0))
    click = np.zeros(RATE, np.float32)
    click[8000:8020] = 0.9
    assert is_silent(click)
    short = np.concatenate([np.zeros(RATE, np.float32), tone(0.08), np.zeros(RATE, np.float32)])
    assert not is_silent(short)
    assert not is_silent(tone(0.03))
    assert is_silent(np.zeros(0, np.float32))


def test_short_audio_is_padded_and_long_audio_untouched() -> None:
    assert len(pad(np.ones(1, np.float32))) == 1600
    long = tone(1.0)
    assert pad(long) is long


@settings(max_examples=40, deadline=None)
@given(seconds=st.floats(0.01, 20.0), window=st.floats(0.5, 6.0), seed=st.integers(0, 2**32 - 1))
def test_windows_cover_everything_once_and_fit(seconds: float, window: float, seed: int) -> None:
    samples = np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)
    windows = cut(samples, window)
    assert windows[0][0] == 0
    assert windows[-1][1] == len(samples)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(windows))
    assert all(0 < last - first <= int(window * RATE) for first, last in windows)
    # No scrap at the end that a recogniser would hear nothing in.
    assert len(windows) == 1 or windows[-1][1] - windows[-1][0] >= int(window * RATE) // 4 - 320


def test_cuts_lie_in_the_pauses() -> None:
    words = [np.concatenate([tone(0.7), np.zeros(int(0.3 * RATE), np.float32)])] * 9
    samples = np.concatenate(words)
    for _, last in cut(samples, 3.0)[:-1]:
        assert 0.7 <= (last / RATE) % 1.0 <= 1.0


def test_a_window_too_short_to_cut_is_refused() -> None:
    with pytest.raises(ValueError, match=r"window is 0\.01 s"):
        cut(tone(1.0), 0.01)


def write(path: Path, samples: np.ndarray, rate: int = RATE, **kwargs: str) -> Utterance:
    soundfile.write(path, samples, rate, **kwargs)
    return Utterance(utt_id=path.stem, audio_filepath=str(path), duration=len(samples) / rate)


def test_reading_gives_windows_with_offsets(tmp_path: Path) -> None:
    utterance = write(tmp_path / "long.wav", np.concatenate([tone(5.0), np.zeros(5 * RATE)]))
    windows = read_windows(utterance, 4.0)
    assert sum(window.seconds for window in windows) == pytest.approx(10.0)
    assert [window.index for window in windows] == list(range(len(windows)))
    assert windows[1].start == windows[0].seconds
    assert not windows[0].silent
    assert windows[-1].silent


def test_rate_channels_and_subtype_do_not_matter(tmp_path: Path) -> None:
    time = np.arange(44100) / 44100
    stereo = np.stack([np.sin(2 * np.pi * 440 * time)] * 2, axis=1) * 0.1
    utterance = write(tmp_path / "stereo.wav", stereo, 44100, subtype="PCM_16")
    (window,) = read_windows(utterance, 30.0)
    assert window.samples.dtype == np.float32
    assert window.samples.shape == (RATE,)
    # int16 taken for float would be far above 1 (features differ, nothing is said).
    assert 0.09 < np.abs(window.samples).max() < 0.12


def test_bad_files_raise_one_kind_of_error(tmp_path: Path) -> None:
    nan = tone(1.0)
    nan[5] = np.nan
    bad = write(tmp_path / "nan.wav", nan, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        read_windows(bad, 30.0)
    with pytest.raises(AudioError, match="must exist"):
        read_windows(Utterance(utt_id="x", audio_filepath="nowhere.wav", duration=1.0), 30.0)


def test_a_file_shorter_than_stated_is_heard_as_far_as_it_goes(tmp_path: Path) -> None:
    utterance = write(tmp_path / "a.wav", tone(1.0))
    stated = Utterance(utt_id="a", audio_filepath=utterance.audio_filepath, duration=3.0)
    (window,) = read_windows(stated, 30.0)
    assert window.seconds == pytest.approx(1.0)
