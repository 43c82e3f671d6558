"""Utterances once more at other speeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from manifests.jsonl import read_manifest, read_rows, write_rows
from manifests.perturb import main, perturb
from manifests.rows import Utterance
from manifests.split import crossing_speakers
from manifests.validate import validate

RATE = 16_000
HZ = 1000.0


def corpus(folder: Path, peak: float = 0.5, rate: int = RATE) -> Path:
    """A tone of 2 s, of which a row names the second half, and its manifest."""
    (folder / "wav").mkdir(parents=True)
    tone = peak * np.sin(2 * np.pi * HZ * np.arange(2 * rate) / rate)
    soundfile.write(folder / "wav" / "tone.wav", tone, rate, subtype="FLOAT")
    row = Utterance(
        utt_id="0001-a",
        audio_filepath="wav/tone.wav",
        duration=1.0,
        offset=1.0,
        text="ONE TWO",
        speaker="0001",
        session="s1",
        age="5-7",
        extra={"gender": "f"},
    )
    write_rows(folder / "train.jsonl", [row])
    return folder / "train.jsonl"


@pytest.mark.parametrize("rate", [RATE, 44_100])
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_as_many_periods_in_less_or_more_time(tmp_path: Path, factor: float, rate: int) -> None:
    out = tmp_path / "x" / "perturbed.jsonl"
    assert perturb(corpus(tmp_path / "corpus", rate=rate), [factor], out) == 2
    before, after = read_manifest(out)
    assert (before.utt_id, before.offset, before.duration) == ("0001-a", 1.0, 1.0)
    assert Path(before.audio_filepath).samefile(tmp_path / "corpus" / "wav" / "tone.wav")
    assert (after.utt_id, after.offset) == (f"0001-a-sp{factor:g}", 0.0)
    assert after.duration == pytest.approx(1 / factor, abs=1e-3)
    audio, written = soundfile.read(after.audio_filepath)
    assert (written, len(audio)) == (RATE, round(after.duration * RATE))
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    assert np.argmax(spectrum) / after.duration == pytest.approx(HZ * factor, abs=2)


def test_who_says_what_stays_the_same(tmp_path: Path) -> None:
    train, out = corpus(tmp_path), tmp_path / "perturbed.jsonl"
    assert perturb(train, [0.9, 1.1], out, jobs=2) == 3
    rows = list(read_rows(out, Utterance))
    assert {(row.text, row.speaker, row.age) for row in rows} == {("ONE TWO", "0001", "5-7")}
    assert [row.extra for row in rows] == [{"gender": "f"}] * 3
    # Else a recogniser that hears what was said before would take it from another speed.
    assert [row.session for row in rows] == ["s1", "s1-sp0.9", "s1-sp1.1"]
    assert not list(validate(out))
    # Whoever perturbs a set that dev's speakers are in is still found out.
    assert crossing_speakers(read_manifest(out), read_manifest(train))


def test_loud_audio_is_not_clipped(tmp_path: Path) -> None:
    out = tmp_path / "perturbed.jsonl"
    perturb(corpus(tmp_path, peak=3.0), [1.1], out)
    audio, _ = soundfile.read(list(read_manifest(out))[1].audio_filepath)
    assert np.mean(np.abs(audio) > 0.99) < 0.15  # a clipped sine is nearly always there


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (["1"], "factor is 1, must be in"),
        (["2.5"], "factor is 2.5, must be in"),
        (["nan"], "factor is nan, must be in"),
        (["0.9", "0.9"], "factors are 0.9 0.9, must all differ"),
    ],
)
def test_factors_that_change_nothing_or_too_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], factors: list[str], message: str
) -> None:
    out = tmp_path / "perturbed.jsonl"
    assert main([str(corpus(tmp_path)), "--factors", *factors, "--out", str(out)]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_audio_that_is_missing_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, out = corpus(tmp_path), tmp_path / "perturbed.jsonl"
    (tmp_path / "wav" / "tone.wav").unlink()
    assert main([str(train), "--out", str(out)]) == 1
    assert "tone.wav: no such file, must exist" in capsys.readouterr().err
    assert not out.exists()
