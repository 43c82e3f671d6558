"""The journal of an unfinished decode: nothing lost, nothing doubled, nothing mixed."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from manifests import Hypothesis, NBest, Utterance, part_path, read_nbest
from systems.journal import Journal, files_digest, utterances_digest
from systems.lock import OnlyOne

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


def test_what_ended_before_its_first_row_binds_nobody(tmp_path: Path) -> None:
    out = tmp_path / "h.jsonl"
    with pytest.raises(ValueError, match="no such device"), Journal(out, ORIGIN):
        raise ValueError("no such device")
    assert not list(tmp_path.iterdir())
    with Journal(out, {**ORIGIN, "config": {"beams": 1}}) as journal:
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


def test_a_full_disk_is_named_and_what_was_written_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "h.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        with Journal(out, ORIGIN) as journal:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
            for index in range(100):
                journal.add(row(f"u{index}"))

    try:
        with pytest.raises(OSError, match=r"File too large: '.*h\.jsonl\.part'"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Journal(out, ORIGIN) as journal:
        assert journal.done == {"u0", "u1", "u2"}


def test_a_second_writer_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    out = tmp_path / "h.jsonl"
    script = (
        "import sys; from pathlib import Path; from systems.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), {'config': {'beams': 5}, 'checkpoint': 'abc'})\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        for restart in (False, True):
            with pytest.raises(ValueError, match=r"h\.jsonl: another process is writing it"):
                Journal(out, ORIGIN, restart=restart)
        first.kill()
    with Journal(out, ORIGIN) as journal:
        journal.add(row("a"))
        journal.publish(["a"], {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.jsonl", "h.meta.json"]


def test_a_lock_file_that_was_deleted_before_it_was_locked_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "lock", fcntl.lockf
    deleted = []

    def late(*args: Any) -> None:
        if not deleted:
            deleted.append(path.unlink())
        real(*args)

    monkeypatch.setattr(fcntl, "lockf", late)
    with OnlyOne(path, path):
        assert path.exists()
    assert not path.exists()


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
    model = files_digest(tmp_path / "model.bin")
    (tmp_path / "model.bin").write_bytes(b"56789")
    assert files_digest(tmp_path / "model.bin") != model
    assert files_digest("openai/whisper-tiny") == "openai/whisper-tiny"
