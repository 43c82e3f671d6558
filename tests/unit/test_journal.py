"""The journal of an unfinished decode: nothing lost, nothing doubled, nothing mixed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from manifests import Hypothesis, NBest, Utterance, part_path, read_nbest
from systems.journal import Journal, files_digest, utterances_digest

ORIGIN = {"config": {"beams": 5}, "checkpoint": "abc"}


def row(utt_id: str) -> NBest:
    return NBest(utt_id=utt_id, system="s", hyps=(Hypothesis(text=utt_id),))


def test_rows_survive_and_are_published_in_order(tmp_path: Path) -> None:
    out = tmp_path / "h.jsonl"
    with Journal(out, ORIGIN) as journal:
        journal.add(row("c"))
        journal.add(row("a"))
    assert not out.exists()
    with Journal(out, ORIGIN) as journal:
        assert journal.done == {"a", "c"}
        journal.add(row("b"))
        journal.publish(["a", "b", "c"], {"config": {}})
    assert [one.utt_id for one in read_nbest(out)] == ["a", "b", "c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.jsonl", "h.meta.json"]


def test_a_torn_last_line_is_done_again(tmp_path: Path) -> None:
    out = tmp_path / "h.jsonl"
    with Journal(out, ORIGIN) as journal:
        journal.add(row("a"))
        journal.add(row("b"))
    part = part_path(out)
    part.write_bytes(part.read_bytes()[:-3])
    with Journal(out, ORIGIN) as journal:
        assert journal.done == {"a"}
        journal.add(row("b"))
        journal.publish(["a", "b"], {})
    assert [one.utt_id for one in read_nbest(out)] == ["a", "b"]


def test_another_origin_is_refused_and_named(tmp_path: Path) -> None:
    out = tmp_path / "h.jsonl"
    with Journal(out, ORIGIN) as journal:
        journal.add(row("a"))
    changed = {**ORIGIN, "config": {"beams": 1}}
    with pytest.raises(ValueError, match=r"begun with another config; .*--restart"):
        Journal(out, changed)
    with Journal(out, changed, restart=True) as journal:
        assert journal.done == set()


def test_rows_without_an_origin_are_refused(tmp_path: Path) -> None:
    part_path(tmp_path / "h.jsonl").write_text("")
    with pytest.raises(ValueError, match="another config, checkpoint"):
        Journal(tmp_path / "h.jsonl", ORIGIN)


def test_a_death_after_the_last_row_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "h.jsonl"
    with Journal(out, ORIGIN) as journal:
        journal.add(row("b"))
        journal.add(row("a"))
    (tmp_path / "h.jsonl.ordered").write_text("half a li")  # what a death while ordering leaves
    with Journal(out, ORIGIN) as journal:
        assert journal.done == {"a", "b"}
        journal.publish(["a", "b"], {})
    assert [one.utt_id for one in read_nbest(out)] == ["a", "b"]
    assert not list(tmp_path.glob("*.ordered"))


def test_digests_see_every_change(tmp_path: Path) -> None:
    rows = [Utterance(utt_id="a", audio_filepath="a.wav", duration=1.0)]
    other = [Utterance(utt_id="a", audio_filepath="a.wav", duration=1.5)]
    assert utterances_digest(rows) != utterances_digest(other)
    (tmp_path / "model.bin").write_bytes(b"1234")
    before = files_digest(tmp_path)
    assert before == files_digest(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"5678")
    os.utime(tmp_path / "model.bin", (time.time() + 5, time.time() + 5))
    assert files_digest(tmp_path) != before
    assert files_digest("openai/whisper-tiny") == "openai/whisper-tiny"
