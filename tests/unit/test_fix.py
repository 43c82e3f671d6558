"""Repair leaves a manifest without errors, and lists what it changed and lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import AGE_BUCKETS, Rejected, Utterance, read_manifest, read_rows
from manifests.fix import Fixed, Repaired, fix, main
from manifests.meta import meta_path
from manifests.validate import segmented_files, validate


def test_repairs_and_losses_are_listed(corpus: Any, folder: Path) -> None:
    path = corpus.manifest(
        folder,
        {"utt_id": "a b", "text": " two  words ", "duration": 0, "snr": 5},
        {"duration": 9.0},
        {"utt_id": "u2"},
        {"utt_id": "U2", "text": "other"},
        {"audio_filepath": "damaged.flac"},
        {"offset": 1, "duration": 9, "audio_filepath": "a.flac"},
        {"offset": 0, "duration": 0, "audio_filepath": "a.flac"},
        {"offset": 5, "audio_filepath": "a.flac"},
        {"utt_id": 7, "duration": "3", "age": 6, "speaker": None, "offset": None},
        "{",
        {"utt_id": "absent"},
        {"audio_filepath": "absent"},
        {"offset": -1},
    )
    out = folder / "sub" / "fixed.jsonl"
    assert fix(path, out) == Fixed(kept=4, repaired=10, dropped=9)
    rows = list(read_manifest(out))
    assert [(row.utt_id[:3], row.duration, row.text) for row in rows] == [
        ("a_b", 3.0, "two words"),
        ("u2", 3.0, None),
        ("u6", 2.0, None),
        ("7", 3.0, None),
    ]
    assert all(Path(row.audio_filepath).resolve().parent == folder for row in rows)
    assert [row.extra for row in rows] == [
        {"original_id": "a b", "snr": 5},
        None,
        None,
        {"age": 6},
    ]
    repaired = list(read_rows(out.with_suffix(".repaired.jsonl"), Repaired))
    assert [(row.place.rpartition(":")[2], row.reason) for row in repaired] == [
        ("1", "snr was 5, moved to extra"),
        ("1", f"utt_id was 'a b', is '{rows[0].utt_id}'"),
        ("1", "text was ' two  words ', blanks collapsed"),
        ("1", "duration was 0 s, is the audio's 3 s"),
        ("2", "duration was 9 s, is the audio's 3 s"),
        ("6", "duration was 9 s, is the audio's 2 s"),
        ("9", "utt_id was 7, is '7'"),
        ("9", "duration was '3', is 3.0"),
        ("9", "age was 6, moved to extra"),
        ("9", "offset was null, left out"),
    ]
    dropped = list(read_rows(out.with_suffix(".dropped.jsonl"), Rejected))
    assert [(row.place.rpartition(":")[2], row.reason[:42]) for row in dropped] == [
        ("3", "row repeats line 2"),
        ("4", "utt_id is 'U2', as on line 2 with other co"),
        ("5", "audio_filepath 'damaged.flac': cannot be d"),
        ("7", "duration is 0 s, must be > 0 (how much is "),
        ("8", "offset is 5 s, must lie inside the audio ("),
        ("10", "line is '{', must be JSON: Input data was "),
        ("11", "utt_id is None, must be a non-empty string"),
        ("12", "audio_filepath is None, must be a non-empt"),
        ("13", "offset is -1 s, must be >= 0"),
    ]
    assert list(validate(out, allow_empty=True)) == []
    assert meta_path(out).exists()


def test_what_an_editor_or_a_writer_left(corpus: Any, folder: Path) -> None:
    path = corpus.manifest(
        folder,
        '\ufeff{"utt_id":"a","audio_filepath":"a.wav","duration":1,"offset":1}',
        {"duration": 2.0, "speaker": ""},  # a part too, since line 1 is one
        '{"utt_id":"c","audio_filepath":"a.flac","duration":3,"text":"x","text":"y"}',
    )
    assert fix(path, folder / "fixed.jsonl") == Fixed(kept=3, repaired=3, dropped=0)
    rows = list(read_rows(folder / "fixed.jsonl", Utterance))
    assert [(row.utt_id, row.duration, row.speaker, row.text) for row in rows] == [
        ("a", 1.0, None, None),
        ("u2", 2.0, None, None),
        ("c", 3.0, None, "y"),
    ]
    repaired = read_rows(folder / "fixed.repaired.jsonl", Repaired)
    assert [row.reason for row in repaired] == [
        "line began with a byte order mark, removed",
        "speaker was '', left out",
        "text came twice, the last taken",
    ]


def test_a_sound_manifest_stays_as_it_is(corpus: Any, folder: Path) -> None:
    path = corpus.manifest(folder, {"text": "a", "duration": 2.95}, {"text": "", "age": "12+"})
    assert fix(path, folder / "fixed.jsonl") == Fixed(kept=2, repaired=0, dropped=0)
    assert list(read_rows(folder / "fixed.jsonl", Utterance)) == list(read_rows(path, Utterance))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.one_of(
            st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])),
            st.fixed_dictionaries(
                {},
                optional={
                    "utt_id": st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
                    | st.integers(),
                    "audio_filepath": st.sampled_from(["a.wav", "no.wav", "damaged.flac", 1]),
                    "duration": st.floats(-1, 5) | st.none() | st.text("0.3", max_size=3),
                    "offset": st.sampled_from([0, 0.5, 1, 3, 5, -1, None]),
                    "text": st.text(" a\n\u00a0") | st.none() | st.booleans(),
                    "age": st.sampled_from([*AGE_BUCKETS, "x", 5]),
                    "extra": st.dictionaries(st.text("ab"), st.integers()) | st.integers(),
                    "unknown": st.integers() | st.lists(st.integers()),
                },
            ),
        ),
        max_size=4,
    )
)
def test_whatever_comes_in_what_comes_out_is_valid(
    corpus: Any, tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any] | str]
) -> None:
    folder = tmp_path_factory.mktemp("fix")
    soundfile.write(folder / "a.wav", np.zeros(48_000), 16_000)
    (folder / "damaged.flac").write_bytes(b"fLaC")
    path = corpus.manifest(folder, *rows)
    in_lines = path.read_bytes().count(b"\n")
    fixed = fix(path, folder / "fixed.jsonl")
    assert fixed.kept + fixed.dropped == in_lines
    left = list(map(str, validate(folder / "fixed.jsonl", allow_empty=True)))
    if segmented_files(path):  # of several parts one may be left, which looks too short
        left = [line for line in left if "must be the audio's 3 s" not in line]
    assert left == []


def test_the_command(corpus: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = corpus.manifest(folder, {}, "x")
    args = ["--out", str(folder / "f.jsonl"), "--dropped", str(folder / "lost.jsonl")]
    assert main([str(path), *args]) == 0
    assert len(list(read_rows(folder / "lost.jsonl", Rejected))) == 1
    before = path.read_bytes()
    for wrong in (
        [str(folder / "no.jsonl"), *args],
        [str(path), "--out", str(path)],
        [str(path), *args, "--dropped", str(path)],
        [str(path), *args, "--repaired", str(folder / "f.jsonl")],
        [str(path), *args, "--jobs", "-1"],
    ):
        assert main(wrong) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "must be" in line
    assert path.read_bytes() == before
    assert list(read_rows(folder / "f.jsonl", Utterance)) != []


def test_a_manifest_of_which_nothing_is_left_is_no_success(
    corpus: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = corpus.manifest(folder, "x", {"audio_filepath": "lost.wav"}), folder / "f.jsonl"
    assert main([str(path), "--out", str(out)]) == 1
    dropped = folder / "f.dropped.jsonl"
    assert f"{path}: no row could be kept, {dropped} says why" in capsys.readouterr().err
    assert len(list(read_rows(dropped, Rejected))) == 2
    empty = corpus.manifest(folder, name="empty.jsonl")
    assert main([str(empty), "--out", str(out)]) == 0
