"""One row for each utterance: reading, windows and batches put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from manifests import Hypothesis, NBest, Utterance, Word
from systems.guard import Window
from systems.stream import Ranked, StreamConfig, decode_stream, join_windows

RATE = 16_000
CONFIG = StreamConfig(
    system="counter",
    buckets=(1.0, 2.0),
    nbest=2,
    batch_seconds=4.0,
    max_batch=3,
    silence_dbfs=-55.0,
    read_ahead=3.0,
)


def count(windows: Sequence[Window], bucket: float) -> list[list[Ranked]]:
    """Hear in each window one word that says how long it is."""
    assert all(window.seconds <= bucket for window in windows)
    if any(window.utterance.utt_id.startswith("fatal") for window in windows):
        raise RuntimeError("device on fire")
    heard = []
    for window in windows:
        text = f"{window.seconds:.1f}"
        word = Word(text=text, start=0.1, end=window.seconds, confidence=0.5)
        hypothesis = Hypothesis(text=text, score=-1.0, words=(word,))
        heard.append([Ranked(hypothesis, -1.0), Ranked(Hypothesis(text="x", score=-2.0), -2.0)])
    return heard


def utterance(folder: Path, name: str, seconds: float, *, level: float = 0.1) -> Utterance:
    noise = np.random.default_rng(1).normal(0, level, int(seconds * RATE))
    soundfile.write(folder / f"{name}.wav", noise, RATE)
    return Utterance(
        utt_id=name, audio_filepath=str(folder / f"{name}.wav"), duration=max(seconds, 0.01)
    )


def decode(utterances: Sequence[Utterance]) -> dict[str, NBest]:
    rows = list(decode_stream(utterances, count, CONFIG))
    assert sorted(row.utt_id for row in rows) == sorted(one.utt_id for one in utterances)
    return {row.utt_id: row for row in rows}


def test_each_utterance_once_whatever_goes_wrong(tmp_path: Path) -> None:
    good = [utterance(tmp_path, f"good{n}", 0.3 + 0.1 * n) for n in range(8)]
    bad = [
        Utterance(utt_id="missing", audio_filepath=str(tmp_path / "no.wav"), duration=0.5),
        utterance(tmp_path, "fatal", 0.6),
        utterance(tmp_path, "empty", 0.0),
    ]
    silent = utterance(tmp_path, "silent", 0.7, level=0.0)
    rows = decode([*good[:4], *bad, silent, *good[4:]])
    alone = decode(good)
    assert {one.utt_id: rows[one.utt_id] for one in good} == alone
    for one in bad:
        row = rows[one.utt_id]
        assert row.error
        assert row.hyps == (Hypothesis(text=""),)
    assert rows["fatal"].error == "device on fire"
    assert rows["silent"].error is None
    assert rows["silent"].best.text == ""


def test_windows_are_joined_with_their_times(tmp_path: Path) -> None:
    row = decode([utterance(tmp_path, "long", 5.0)])["long"]
    lengths = [float(text) for text in row.best.text.split()]
    assert sum(lengths) == pytest.approx(5.0, abs=0.15)
    assert row.best.score == -len(lengths)
    assert row.best.words is not None
    starts = [word.start for word in row.best.words]
    assert starts == sorted(starts)
    assert row.best.words[-1].end == pytest.approx(5.0)
    assert len({hyp.text for hyp in row.hyps}) == 2


def test_a_failed_window_is_an_error_of_its_utterance_only(tmp_path: Path) -> None:
    rows = decode([utterance(tmp_path, "fatal-long", 5.0), utterance(tmp_path, "fine", 5.0)])
    assert rows["fatal-long"].error
    assert rows["fine"].error is None


def test_the_nbest_of_windows_are_combined_best_first() -> None:
    def ranked(text: str, rank: float) -> Ranked:
        return Ranked(Hypothesis(text=text, score=rank), rank)

    left = [ranked("a", -1.0), ranked("b", -1.5)]
    right = [ranked("c", -1.0), ranked("", -4.0)]
    joined = join_windows([left, right], 3)
    assert [(one.hypothesis.text, one.rank) for one in joined] == [
        ("a c", -2.0),
        ("b c", -2.5),
        ("a", -5.0),
    ]


def test_the_scores_of_windows_add_up_to_no_more_digits_than_they_have() -> None:
    parts = [[Ranked(Hypothesis(text="a", score=-0.1), -0.1)]] * 3
    assert join_windows(parts, 1)[0].hypothesis.score == -0.3


def test_silence_between_speech_adds_nothing(tmp_path: Path) -> None:
    speech = np.random.default_rng(2).normal(0, 0.1, 2 * RATE)
    samples = np.concatenate([speech, np.zeros(4 * RATE), speech])
    soundfile.write(tmp_path / "gap.wav", samples, RATE)
    row = decode([Utterance(utt_id="gap", audio_filepath=str(tmp_path / "gap.wav"), duration=8.0)])[
        "gap"
    ]
    assert row.best.score is not None
    assert -row.best.score == len(row.best.text.split())
    assert row.best.words is not None
