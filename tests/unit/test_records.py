"""Files cut into batches of utterances, whole blocks at once where they go side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

import fusion.records
from fusion.batch import Part, Stretch
from fusion.records import _to_open_again, read_batches
from manifests import Hypothesis, NBest, RowError, write_rows


def row(utt_id: str) -> NBest:
    return NBest(utt_id=utt_id, system="s", hyps=(Hypothesis(text="x"),))


def members(folder: Path, *files: Sequence[NBest]) -> list[Path]:
    paths = [folder / f"m{n}.jsonl" for n in range(len(files))]
    for path, rows in zip(paths, files, strict=True):
        write_rows(path, rows)
    return paths


def test_only_one_batch_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion.records, "_BATCH", 10)
    rows = [row(f"u{n}") for n in range(35)]
    batches = list(read_batches(members(tmp_path, rows, rows)))
    assert [len(batch.names) for batch in batches] == [10, 10, 10, 5]
    # Of many members less.
    monkeypatch.setattr(fusion.records, "_ROWS", 12)
    assert len(next(read_batches(members(tmp_path, rows, rows))).names) == 6


def test_files_may_part_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole blocks of files that go side by side are read as one, then row by row."""
    monkeypatch.setattr(fusion.records, "_BATCH", 4)
    ids = [f"u{n}" for n in range(20)]
    for gap in range(len(ids)):
        others = [one for one in ids if one != f"u{gap}"]
        paths = members(tmp_path, [row(u) for u in ids], [row(u) for u in others])
        heard = {}
        for batch in read_batches(paths):
            records = zip(*[part.records() for part in batch.parts], strict=True)
            heard |= dict(zip(batch.names, records, strict=True))
        assert len(heard) == len(ids)
        for name, records in heard.items():
            lines = [record and record[1] for record in records]
            assert (lines[1] is None) == (name == f"u{gap}")
            for path, record in zip(paths, records, strict=True):
                if record:
                    data = path.read_bytes()[record[0] :]
                    assert data.startswith(record[1])
                    assert f'"{name}"'.encode() in record[1]


@pytest.mark.parametrize("again", [1, 5, 9])
def test_an_utterance_that_comes_again_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: int
) -> None:
    monkeypatch.setattr(fusion.records, "_BATCH", 4)
    rows = [row(f"u{n}") for n in range(11)] + [row(f"u{again}")]
    with pytest.raises(RowError, match=rf"m0\.jsonl:12: utterance u{again} comes twice"):
        list(read_batches(members(tmp_path, rows, rows)))


def test_brackets_that_nest_too_deep_are_a_bad_row(tmp_path: Path) -> None:
    deep = "[" * 200_000 + "]" * 200_000
    (tmp_path / "m.jsonl").write_text(f'{{"system":"s","utt_id":"u1","hyps":{deep}}}\n')
    with pytest.raises(RowError, match=r"m\.jsonl:1: line is .*, must be JSON"):
        list(read_batches([tmp_path / "m.jsonl"]))


def test_what_is_in_a_file_is_read_by_whoever_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe has nothing more to give, so of it all is kept."""
    monkeypatch.setattr(fusion.records, "_BATCH", 4)
    (path,) = members(tmp_path, [row(f"u{n}") for n in range(10)])
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    batches = list(read_batches([path, pipe]))
    writer.join()
    assert [[type(part) for part in batch.held] for batch in batches] == [[Stretch, Part]] * 3
    for batch in batches:
        in_file, kept = batch.parts
        assert in_file == kept
        assert batch.head(2).parts == [kept.head(2)] * 2
    assert b"".join(batch.parts[0].data for batch in batches) == path.read_bytes()
    # What another process would read there is another file.
    with path.open("rb") as file:
        path.rename(tmp_path / "old.jsonl")
        path.write_bytes(b"")
        assert _to_open_again(path, file) is None
