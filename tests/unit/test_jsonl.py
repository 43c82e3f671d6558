"""JSON Lines: round trips, torn files, atomic writing, messages."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import (
    AGE_BUCKETS,
    Hypothesis,
    NBest,
    Rejected,
    RowError,
    RowWriter,
    Utterance,
    Word,
    check_outputs,
    part_path,
    read_json,
    read_manifest,
    read_nbest,
    read_rows,
    recover_part,
    write_atomic,
    write_json,
    write_rows,
)
from manifests.jsonl import check_plain, decode_rows
from manifests.meta import meta_path

ids = st.text("abcXYZ019._-", min_size=1, max_size=20)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = texts.filter(bool)
scores = st.floats(allow_nan=False, allow_infinity=False)
times = st.floats(0, 1e6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | scores | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
utterances = st.builds(
    Utterance,
    utt_id=ids,
    audio_filepath=names,
    duration=st.floats(1e-6, 1e6),
    offset=times,
    text=st.none() | texts,
    speaker=st.none() | names,
    session=st.none() | names,
    age=st.none() | st.sampled_from(AGE_BUCKETS),
    language=names,
    source=st.none() | names,
    noisy=st.none() | st.booleans(),
    extra=st.none() | st.dictionaries(texts, json_values, max_size=3),
)
words = st.builds(
    lambda text, span, confidence: Word(
        text=text, start=min(span), end=max(span), confidence=confidence
    ),
    texts,
    st.tuples(times, times),
    st.none() | st.floats(0, 1),
)
hypotheses = st.builds(
    Hypothesis,
    text=texts,
    score=st.none() | scores,
    lm_score=st.none() | scores,
    words=st.none() | st.lists(words, max_size=3).map(tuple),
)
nbests = st.builds(
    NBest, utt_id=ids, system=texts, hyps=st.lists(hypotheses, min_size=1, max_size=3).map(tuple)
)
ROW = Utterance(utt_id="u1", audio_filepath="a.wav", duration=1.5, text="\u00e9t\u00e9 \U0001f476")


@given(st.lists(utterances, max_size=5))
def test_utterances_survive_a_round_trip(rows: list[Utterance]) -> None:
    lines = msgspec.json.Encoder().encode_lines(rows).split(b"\n")[:-1]
    assert list(decode_rows(lines, Utterance, "m.jsonl")) == rows


@given(st.lists(nbests, max_size=5))
def test_what_was_heard_survives_a_round_trip(rows: list[NBest]) -> None:
    lines = msgspec.json.Encoder().encode_lines(rows).split(b"\n")[:-1]
    assert list(decode_rows(lines, NBest, "h.jsonl")) == rows


@settings(max_examples=20)
@given(rows=st.lists(utterances, max_size=5))
def test_files_survive_a_round_trip(
    rows: list[Utterance], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("trip") / "new folder" / "m.jsonl"
    assert write_rows(path, rows) == len(rows)
    assert list(read_rows(path, Utterance)) == rows
    assert sorted(p.name for p in path.parent.iterdir()) == ["m.jsonl", "m.meta.json"]


def test_a_row_is_one_line_whatever_its_text(tmp_path: Path) -> None:
    row = msgspec.structs.replace(ROW, text="one\ntwo\r\u2028\x85\x00three")
    write_rows(tmp_path / "m.jsonl", [row, row])
    assert (tmp_path / "m.jsonl").read_bytes().count(b"\n") == 2
    assert list(read_rows(tmp_path / "m.jsonl", Utterance)) == [row, row]


def test_a_part_is_recovered_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    rows = [msgspec.structs.replace(ROW, utt_id=f"u{i}") for i in range(3)]
    data = msgspec.json.Encoder().encode_lines(rows)
    for cut in range(len(data) + 1):
        part_path(path).write_bytes(data[:cut])
        whole = data[:cut].count(b"\n")
        assert recover_part(path, Utterance) == rows[:whole]
        with RowWriter(path, resume=True) as writer:
            for row in rows[whole:]:
                writer.write(row)
        assert path.read_bytes() == data
        path.unlink()


def test_resuming_cuts_a_torn_line_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    part_path(path).write_bytes(msgspec.json.encode(ROW) + b'\n{"utt_id": "hal')
    with RowWriter(path, resume=True) as writer:
        writer.write(ROW)
    assert list(read_rows(path, Utterance)) == [ROW, ROW]


def test_without_resume_an_old_part_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    part_path(path).write_bytes(b"old\n")
    write_rows(path, [ROW])
    assert list(read_rows(path, Utterance)) == [ROW]


def test_nothing_to_recover(tmp_path: Path) -> None:
    assert recover_part(tmp_path / "m.jsonl", Utterance) == []


def test_a_bad_line_in_the_middle_of_a_part_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    part_path(path).write_bytes(b"{\n" + msgspec.json.encode(ROW) + b"\n")
    with pytest.raises(RowError, match=r"m\.jsonl\.part:1: line is '\{'"):
        recover_part(path, Utterance)


def test_an_exception_leaves_no_file_but_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"

    def rows() -> Iterator[Utterance]:
        yield ROW
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_rows(path, rows())
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl.part"]
    assert recover_part(path, Utterance) == [ROW]


def test_an_exception_keeps_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_rows(path, [ROW])
    with pytest.raises(RuntimeError), RowWriter(path):
        raise RuntimeError
    assert list(read_rows(path, Utterance)) == [ROW]


def test_flushed_rows_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with RowWriter(path) as writer:
        writer.write(ROW)
        writer.flush()
        assert recover_part(path, Utterance) == [ROW]


def test_meta_says_how_a_file_was_made(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_rows(path, [ROW], meta={"seed": 7, "src": tmp_path})
    meta = json.loads(meta_path(path).read_text())
    assert meta["seed"] == 7
    assert meta["src"] == str(tmp_path)
    assert meta["versions"]["python"].startswith("3.")
    assert meta["wall_seconds"] > 0
    assert {"command", "git"} <= meta.keys()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "line is blank, must hold a row"),
        (b"{", "line is '{', must be JSON: Input data was truncated"),
        (b"[1]", "line is [1], must be an object"),
        (b"\xff", "line is '\\\\xff', must be JSON"),
        (b"NaN", "line is 'NaN', must be JSON"),
        (b'{"utt_id":"u"}', "field 'audio_filepath' is missing, must be there"),
        (
            b'{"utt_id":7,"audio_filepath":"a","duration":1}',
            "utt_id is 7, must be `str`, not `int`",
        ),
        (
            b'{"utt_id":"u","audio_filepath":"a","duration":1,"age":"6"}',
            "age is '6', must be one of: 3-4, 5-7, 8-11, 12+",
        ),
        (
            b'{"utt_id":"u","audio_filepath":"a","duration":1,"wav":1}',
            "field 'wav' is unknown, must be one of: utt_id, audio_filepath",
        ),
        (b'{"utt_id":"u","audio_filepath":"a","duration":0}', "duration is 0 s, must be > 0"),
    ],
)
def test_errors_name_file_line_value_and_rule(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(msgspec.json.encode(ROW) + b"\n" + line + b"\n")
    rows = read_rows(path, Utterance)
    assert next(rows) == ROW
    with pytest.raises(RowError) as raised:
        next(rows)
    assert str(raised.value).startswith(f"{path}:2: {message}")


def test_nested_faults_are_placed(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"utt_id":"u","system":"s","hyps":[{"text":1}]}\n')
    with pytest.raises(RowError, match=r"h\.jsonl:1: hyps is .*must be `str`.*`hyps\[0\]\.text`"):
        list(read_nbest(path))


def test_rows_without_rules_of_their_own_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    row = Rejected(place="a:1", reason="b, must c")
    write_rows(path, [row])
    assert list(read_rows(path, Rejected)) == [row]
    path.write_text('{"place":"a:1"}\n')
    with pytest.raises(RowError, match=r"q\.jsonl:1: field 'reason' is missing"):
        list(read_rows(path, Rejected))


def test_audio_is_found_beside_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absolute = msgspec.structs.replace(ROW, audio_filepath="/corpus/a.wav")
    write_rows(tmp_path / "data" / "m.jsonl", [ROW, absolute])
    monkeypatch.chdir(tmp_path)
    found = [row.audio_filepath for row in read_manifest(Path("data/m.jsonl"))]
    assert found == [str(tmp_path / "data" / "a.wav"), "/corpus/a.wav"]


def test_a_last_line_without_its_newline_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(msgspec.json.encode(ROW))
    assert list(read_rows(path, Utterance)) == [ROW]


def test_small_texts_are_replaced_whole(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "r.md", "one")
    write_atomic(tmp_path / "a" / "r.md", "two \u00e9")
    assert (tmp_path / "a" / "r.md").read_text(encoding="utf-8") == "two \u00e9"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["r.md"]


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    row = Utterance(utt_id="u", audio_filepath="a.wav", duration=1.0, text="x" * 5_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for count in (1, 5):  # held back until the end, and written at once
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(OSError, match=r"m\.jsonl"):
                write_rows(tmp_path / "m.jsonl", [row] * count)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "m.jsonl").exists()


def test_json_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a" / "r.json"
    write_json(path, {"rows": [ROW], "none": float("inf"), "name": "\u00e9"})
    text = path.read_text(encoding="utf-8")
    assert text.startswith('{\n "rows": [\n  {')
    assert text.endswith('"\u00e9"\n}\n')
    write_json(path, ROW, indent=None)
    assert read_json(path, Utterance, "utterance") == ROW
    # What a struct says is "none" every JSON reader understands; a path may be no UTF-8.
    write_json(path, Hypothesis(text="he", score=float("nan")))
    assert '"score": null' in path.read_text(encoding="utf-8")
    write_json(path, {"path": "\udcff"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"path": "\udcff"}
    with pytest.raises(TypeError):
        write_json(path, {"path": path})


@pytest.mark.parametrize("data", [b"{", b"\xff", b'{"utt_id": 1}', b"[" * 100_000])
def test_what_is_no_json_of_ours_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"r\.json: is no utterance: "):
        read_json(tmp_path / "r.json", Utterance, "utterance")


def test_no_pipe_device_or_folder_is_replaced_by_a_file(tmp_path: Path) -> None:
    """A file renamed to /dev/null takes it from everybody, where root runs the command."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "null"):
        with pytest.raises(ValueError, match="is no plain file"):
            RowWriter(path)
        with pytest.raises(ValueError, match="is no plain file"):
            write_atomic(path, "text")
    assert (tmp_path / "pipe").is_fifo()
    for device in ("/dev/null", "/dev/stdout"):
        with pytest.raises(ValueError, match=f"{device}: is no plain file"):
            check_plain(Path(device))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_atomic(tmp_path / "link", "a link to a file is no pipe")


def test_what_is_read_is_not_written_over(tmp_path: Path) -> None:
    """A decoding of hours would be lost."""
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.touch()
    (tmp_path / "link.jsonl").symlink_to(one)
    check_outputs([two], [one])
    for same in (one, tmp_path / "." / "one.jsonl", tmp_path / "link.jsonl"):
        with pytest.raises(ValueError, match=r"\.jsonl: is what is read"):
            check_outputs([two, same], [one])
    with pytest.raises(ValueError, match=r"two\.jsonl: two outputs"):
        check_outputs([two, two], [one])
