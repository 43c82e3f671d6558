"""A manifest read aloud, and manifests joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from manifests.corpora.read_aloud import CLIPS, LONGEST, clips, import_corpus
from manifests.join import join, main
from manifests.jsonl import read_manifest, read_rows, write_rows
from manifests.rows import Rejected, Utterance

SENTENCES = ["we call it bear", "mandy has a big arm", "i see a cat"]


def manifest(path: Path, *texts: str | None) -> Path:
    rows = [
        Utterance(utt_id=f"{path.stem}-{i}", audio_filepath=f"a/{i}.wav", duration=1, text=text)
        for i, text in enumerate(texts)
    ]
    write_rows(path, rows)
    return path


def test_sentences_and_words_in_random_order_from_the_text_alone() -> None:
    drawn = clips(SENTENCES, count=400)
    assert drawn == clips(SENTENCES, count=400)
    assert len(clips(SENTENCES)) == CLIPS
    known = {word for text in SENTENCES for word in text.split()}
    assert all(set(clip.text.split()) <= known for clip in drawn)
    as_written = [clip.text for clip in drawn if clip.text in SENTENCES]
    assert 150 < len(as_written) < 250
    assert max(map(as_written.count, SENTENCES)) - min(map(as_written.count, SENTENCES)) <= 1
    assert len({clip.utt_id for clip in drawn}) == 400
    assert len({clip.voice.speaker for clip in drawn}) > 100


def test_capitals_are_read_as_words_and_long_texts_faster(tmp_path: Path) -> None:
    src = manifest(tmp_path / "train.jsonl", "MARK IS GOING TO SEE " * 12, None, "")
    rows = list(import_corpus(src, limit=4)["read_aloud"])
    assert not any(isinstance(row, Rejected) for row in rows)
    for row in rows:
        assert isinstance(row, Utterance)
        assert row.text == row.text.lower()
        assert row.duration <= LONGEST + 0.25  # and the quiet around it
        audio, rate = soundfile.read(row.audio_filepath)
        assert rate == 16_000
        assert np.abs(audio).max() > 0.1


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no text to read aloud"):
        import_corpus(manifest(tmp_path / "blind.jsonl", None))


def test_joined_rows_find_their_audio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").mkdir()
    one, two = manifest(tmp_path / "one.jsonl", "a"), manifest(tmp_path / "x" / "two.jsonl", "b")
    out = tmp_path / "y" / "both.jsonl"
    assert main([str(one), str(two), "--out", str(out)]) == 0
    assert "2 rows" in capsys.readouterr().out
    assert [row.utt_id for row in read_rows(out, Utterance)] == ["one-0", "two-0"]
    assert [Path(row.audio_filepath) for row in read_manifest(out)] == [
        tmp_path / "y" / ".." / "a" / "0.wav",
        tmp_path / "y" / ".." / "x" / "a" / "0.wav",
    ]
    upper = tmp_path / "upper.jsonl"
    upper.write_text(one.read_text().replace("one-0", "ONE-0"))
    for again in (one, upper):
        with pytest.raises(ValueError, match=rf"{again.name}:1: .* \(first at {one}:1\)"):
            join([one, again], tmp_path / "twice.jsonl")
    assert not (tmp_path / "twice.jsonl").exists()
    assert main([str(one), str(one), "--out", str(out)]) == 1
