"""`manifests.audio`: every format, rate and channel count, and everything that can be wrong."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from manifests.audio import AudioError, audio_duration, load_audio

FORMATS = {
    "wav": {},
    "flac": {},
    "ogg": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {},
    "aiff": {},
    "w64": {},
}


def tone(seconds: float, rate: int, hz: float = 440.0) -> np.ndarray:
    """A swelling tone: every moment is unlike every other, so a wrong seek shows."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.6 * np.minimum(time / 4, 1) * np.sin(2 * np.pi * hz * time)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2), (8_000, 1)])
def test_every_format_rate_and_channel_count(
    tmp_path: Path, ending: str, rate: int, channels: int
) -> None:
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, np.stack([tone(2, rate)] * channels, 1), rate, **FORMATS[ending])
    samples = load_audio(path)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(32_000, abs=1)
    # Away from the edges: lossy codecs and resamplers ring there.
    assert np.abs(samples[800:31_200] - tone(2, 16_000)[800:31_200]).max() < 0.05
    assert audio_duration(path) == pytest.approx(2, abs=1e-3)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_segment_is_what_the_whole_file_holds_there(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, tone(4, 48_000), 48_000, **FORMATS[ending])
    whole, part = load_audio(path), load_audio(path, 1.5, 1.25)
    assert len(part) == 20_000
    assert np.abs(part[200:-200] - whole[24_200:43_800]).max() < 1e-3


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([np.full(1600, 0.5), np.full(1600, -0.25)], 1), 16_000)
    assert np.allclose(load_audio(path), 0.125, atol=1e-4)


def test_a_segment_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(
        path, np.concatenate([np.full(16_000, np.nan), tone(1, 16_000)]), 16_000, "FLOAT"
    )
    assert len(load_audio(path, 1.0)) == 16_000
    with pytest.raises(AudioError, match="NaN"):
        load_audio(path)


def test_loud_audio_is_scaled_and_never_clipped(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1, 16_000) * 30_000, 16_000, subtype="FLOAT")
    samples = load_audio(path)
    expected = tone(1, 16_000) / np.abs(tone(1, 16_000)).max()
    assert np.abs(samples).max() <= 1
    assert np.abs(samples - expected).max() < 1e-6


def test_overshoot_of_the_resampler_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    square = np.sign(np.sin(2 * np.pi * 200 * np.arange(44_100) / 44_100))
    soundfile.write(path, square, 44_100)
    assert np.abs(load_audio(path)).max() == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_what_is_not_finite_is_an_error(tmp_path: Path, value: float, rate: int) -> None:
    path = tmp_path / "a.wav"
    samples = tone(1, rate)
    samples[rate // 2] = value
    soundfile.write(path, np.stack([samples, tone(1, rate)], 1), rate, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"a\.wav: audio holds NaN or infinity, must be finite"):
        load_audio(path)


def test_missing_empty_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.flac").write_text("no audio " * 100)
    (tmp_path / "x.raw").write_bytes(bytes(100))  # soundfile raises TypeError for these
    soundfile.write(tmp_path / "zero.wav", np.zeros(0), 16_000)
    for name, reason in {
        "absent.wav": "no such file",
        "x" * 300: "File name too long, must be readable",
        ".": "not a file",
        "empty.wav": "0 bytes",
        "text.flac": "cannot be decoded",
        "x.raw": "cannot be decoded",
        "zero.wav": "0 samples",
    }.items():
        with pytest.raises(AudioError, match=reason):
            load_audio(tmp_path / name)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "opus", "mp3", "aiff"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_file_that_was_cut_off(tmp_path: Path, ending: str, share: float) -> None:
    path = tmp_path / f"a.{ending}"
    noise = np.random.default_rng(0).normal(0, 0.1, 6 * 48_000)  # constant bytes a second
    soundfile.write(path, noise, 48_000, **FORMATS[ending])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(AudioError):
        load_audio(path)
    whole = 6 * 16_000
    assert 0.1 * whole < len(load_audio(path, partial=True)) < (share + 0.1) * whole


def test_a_wav_that_was_streamed_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1, 16_000), 16_000)
    data = bytearray(path.read_bytes())
    size = data.index(b"data") + 4
    for stated in (0xFFFFFFFF, 0x7FFFFFFF):  # what ffmpeg and sox write into a pipe
        data[size : size + 4] = stated.to_bytes(4, "little")
        path.write_bytes(data)
        assert len(load_audio(path)) == 16_000


def test_segments_outside_the_audio(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(2, 16_000), 16_000)
    assert len(load_audio(path, 1.5, 0.55)) == 8_000  # codecs pad and corpora round
    assert len(load_audio(path, 1.5, 3.0, partial=True)) == 8_000
    for offset, duration, reason in [
        (1.5, 0.7, "audio ends after 0.500 s, must last 0.700 s"),
        (2.0, None, "offset is 2 s, must lie before the end at 2.000 s"),
        (-1.0, None, "offset is -1 s, must be >= 0"),
        (0.0, 0.0, "duration is 0 s, must be > 0"),
        (0.0, float("nan"), "duration is nan s, must be > 0"),
    ]:
        with pytest.raises(AudioError, match=reason):
            load_audio(path, offset, duration)


@given(data=st.data())
def test_damage_is_an_audio_error_or_sound_audio(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ending = data.draw(st.sampled_from(["wav", "flac", "ogg", "opus"]))
    path = tmp_path_factory.mktemp("audio") / f"a.{ending}"
    soundfile.write(path, tone(0.5, 16_000), 16_000, **FORMATS[ending])
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=64))
    content[start : start + len(patch)] = patch
    path.write_bytes(content)
    with suppress(AudioError):
        samples = load_audio(path, partial=data.draw(st.booleans()))
        assert len(samples)
        assert np.abs(samples).max() <= 1
