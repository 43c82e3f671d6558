"""Validation lists every error; repair leaves a manifest without any."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import AGE_BUCKETS, NBest, Rejected, Utterance, read_manifest, read_rows
from manifests.fix import Fixed, Repaired, fix
from manifests.fix import main as fix_main
from manifests.meta import meta_path
from manifests.probe import Probe, audio_fault, probe
from manifests.validate import guess_row_type, main, segmented_files, validate

REPO = Path(__file__).parents[2]
SECONDS = 3.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a.wav, a.flac, a.mp3 and a.opus of three seconds, and damaged.flac."""
    noise = np.random.default_rng(0).normal(0, 0.1, round(SECONDS * 16_000))
    for name in ("a.wav", "a.flac", "a.mp3"):
        soundfile.write(tmp_path / name, noise, 16_000)
    soundfile.write(tmp_path / "a.opus", noise, 16_000, format="OGG", subtype="OPUS")
    (tmp_path / "damaged.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:9_000])
    return tmp_path


def manifest(folder: Path, *rows: dict[str, Any] | str, name: str = "m.jsonl") -> Path:
    """Write rows; what they don't say is that of a sound row, with ids by line."""
    path = folder / name
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows, 1):
            if isinstance(row, dict):
                sound = {"utt_id": f"u{number}", "audio_filepath": "a.wav", "duration": SECONDS}
                kept = {k: v for k, v in (sound | row).items() if v != "absent"}
                file.write(json.dumps(kept) + "\n")
            else:
                file.write(row + "\n")
    return path


def messages(path: Path, **options: Any) -> list[str]:
    found = [str(problem) for problem in validate(path, **options)]
    assert all(line.startswith(f"{path}:") for line in found)
    return [line.removeprefix(f"{path}:") for line in found]


class TestRows:
    def test_a_sound_manifest(self, folder: Path) -> None:
        path = manifest(
            folder,
            {"text": "a"},
            {"duration": 3.09, "audio_filepath": str(folder / "a.flac"), "text": "I"},
            {"duration": 2.91, "audio_filepath": "a.opus"},
            {"audio_filepath": "a.mp3", "age": "3-4", "extra": {"any": [1]}},
        )
        assert messages(path) == []

    def test_every_error_of_every_row_is_listed(self, folder: Path) -> None:
        path = manifest(
            folder,
            {"utt_id": "a b", "duration": 0, "offset": -1, "text": " ", "foo": 1, "age": "6"},
            "not json",
            "",
            "[]",
            {"utt_id": "absent", "duration": "3", "audio_filepath": 7},
        )
        known = "utt_id, audio_filepath, duration, offset, text, speaker, session, age, language"
        assert messages(path) == [
            f"1: field 'foo' is unknown, must be one of: {known}, source, noisy, extra",
            "1: age is '6', must be one of: 3-4, 5-7, 8-11, 12+",
            "1: utt_id is 'a b', must match [A-Za-z0-9._-]+",
            "1: duration is 0 s, must be > 0",
            "1: offset is -1 s, must be >= 0",
            "1: text is ' ', must hold a word (silence is '')",
            "2: line is 'not json', must be JSON: JSON is malformed: invalid character (byte 4)",
            "3: line is blank, must hold a row",
            "4: line is [], must be an object",
            "5: field 'utt_id' is missing, must be there",
            "5: audio_filepath is 7, must be `str`, not `int`",
            "5: duration is '3', must be `float`, not `str`",
        ]

    def test_repeated_ids_name_the_first_line(self, folder: Path) -> None:
        rule = "must be unique without regard to case (first on line 1)"
        path = manifest(folder, {"utt_id": "A"}, {}, {"utt_id": "a"}, {"utt_id": "A", "x": 1})
        assert [line for line in messages(path) if "unique" in line] == [
            f"3: utt_id is 'a', {rule}",
            f"4: utt_id is 'A', {rule}",
        ]

    def test_repeats_are_found_across_chunks(self, folder: Path) -> None:
        path = manifest(folder, *({} for _ in range(5000)), {"utt_id": "u1"})
        (line,) = messages(path, audio=False)
        assert line.startswith("5001: utt_id is 'u1'")

    def test_silence_is_allowed_on_demand_and_blank_text_never(self, folder: Path) -> None:
        path = manifest(folder, {"text": ""}, {"text": "\t"}, {"text": None}, {})
        assert [line.split(":")[0] for line in messages(path)] == ["1", "2"]
        assert [line.split(":")[0] for line in messages(path, allow_empty=True)] == ["2"]

    def test_what_was_heard(self, tmp_path: Path) -> None:
        good = {"utt_id": "a", "system": "s", "hyps": [{"text": ""}]}
        words = [{"text": "a", "confidence": 2}, {"text": "b", "start": 2, "end": 1}]
        path = tmp_path / "h.jsonl"
        rows = [good, good, good | {"hyps": []}, good | {"hyps": [{"text": "ab", "words": words}]}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert guess_row_type(path) is NBest
        found = [line for line in messages(path) if "unique" not in line]
        assert found == [
            "3: hyps is empty, must hold at least one hypothesis (silence is text '')",
            "4: confidence is 2, must lie in [0, 1]",
            "4: word ends at 1 s, before its start 2 s",
        ]

    def test_a_file_without_rows_is_sound(self, tmp_path: Path) -> None:
        path = tmp_path / "none.jsonl"
        path.touch()
        assert messages(path) == []


class TestAudio:
    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"audio_filepath": "no.wav"}, "audio_filepath 'no.wav': no such file, must exist"),
            (
                {"audio_filepath": "damaged.flac"},
                "audio_filepath 'damaged.flac': cannot be decoded",
            ),
            ({"audio_filepath": "m.jsonl"}, "audio_filepath 'm.jsonl': cannot be decoded"),
            ({"duration": 3.11}, "duration is 3.11 s, must be the audio's 3 s to within 0.1 s"),
            ({"duration": 2.89}, "duration is 2.89 s, must be the audio's 3 s to within 0.1 s"),
            ({"offset": 3, "duration": 1}, "offset is 3 s, must lie inside the audio (3 s)"),
            (
                {"offset": 2, "duration": 1.2},
                "offset + duration is 3.2 s, must lie inside the audio (3 s)",
            ),
        ],
    )
    def test_what_disagrees(self, folder: Path, row: dict[str, Any], message: str) -> None:
        path = manifest(folder, row)
        (line,) = messages(path)
        assert line.startswith(f"1: {message}")
        assert messages(path, audio=False) == []

    def test_parts_of_a_file_may_be_shorter_than_it(self, folder: Path) -> None:
        parts = {"offset": 0, "duration": 1}, {"offset": 1, "duration": 2.05}
        assert messages(manifest(folder, *parts)) == []
        assert messages(manifest(folder, parts[0])) != []

    def test_a_row_wrong_in_itself_still_has_its_file_looked_for(self, folder: Path) -> None:
        path = manifest(folder, {"duration": "3", "audio_filepath": "no.wav"}, {"duration": -1})
        assert [line[:20] for line in messages(path)] == [
            "1: duration is '3', ",
            "1: audio_filepath 'n",
            "2: duration is -1 s,",
        ]

    def test_a_tenth_of_a_second_is_still_agreement(self) -> None:
        for duration in (0.9, 1.1):
            assert audio_fault(Probe(1.0), "a.wav", 0.0, duration, segmented=False) is None

    def test_a_stream_that_states_no_length_is_not_held_against_its_row(self) -> None:
        assert audio_fault(Probe(float("inf")), "a.ogg", 5.0, 1.0, segmented=False) is None

    @pytest.mark.parametrize("ending", ["flac", "mp3"])
    def test_a_header_that_promises_what_was_cut_off(self, folder: Path, ending: str) -> None:
        path = folder / f"a.{ending}"
        assert probe(str(path)).duration == pytest.approx(SECONDS, abs=0.01)
        path.write_bytes(path.read_bytes()[:-2_000])
        assert probe(str(path)).problem is not None


class TestCommand:
    def run(self, *args: str | Path, code: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "manifests.validate", *map(str, args)]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done

    def test_exit_codes_and_streams(self, folder: Path) -> None:
        good = manifest(folder, {"text": ""}, name="good.jsonl")
        bad = manifest(folder, {"duration": 9, "speaker": 7}, name="bad.jsonl")
        assert self.run("--allow-empty-text", good, code=0).stdout == ""
        done = self.run("--jobs", "2", good, bad, code=1)
        assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [
            f"{good}:1",
            f"{bad}:1",
            f"{bad}:1",
        ]
        assert done.stderr == f"{good}: 1 errors in 1 rows\n{bad}: 2 errors in 1 rows\n"
        assert self.run("--no-audio", bad, code=1).stdout.count("\n") == 1
        assert self.run("--rows", "nbest", bad, code=1).stdout.count("is missing") == 2

    def test_a_missing_file_is_one_line(self, tmp_path: Path) -> None:
        done = self.run(tmp_path / "no.jsonl", code=2)
        assert done.stderr == (
            f"{tmp_path}/no.jsonl: no such file, must be a manifest or hypothesis file\n"
        )

    def test_head_may_close_the_pipe(self, folder: Path) -> None:
        path = manifest(folder, *("x" for _ in range(20_000)))
        validation = f"{sys.executable} -m manifests.validate {path}"
        done = subprocess.run(
            ["bash", "-c", f"{validation} | head -1"], cwd=REPO, capture_output=True, text=True
        )
        assert done.stdout.count("\n") == 1
        assert "Traceback" not in done.stderr

    def test_the_call_is_the_command(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = manifest(folder, {"duration": 9})
        assert main([str(path)]) == 1
        assert capsys.readouterr().out == "".join(f"{p}\n" for p in validate(path))


class TestFix:
    def test_repairs_and_losses_are_listed(self, folder: Path) -> None:
        path = manifest(
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
        assert messages(out, allow_empty=True) == []
        assert meta_path(out).exists()

    def test_a_sound_manifest_stays_as_it_is(self, folder: Path) -> None:
        path = manifest(folder, {"text": "a", "duration": 2.95}, {"text": "", "age": "12+"})
        assert fix(path, folder / "fixed.jsonl") == Fixed(kept=2, repaired=0, dropped=0)
        assert list(read_rows(folder / "fixed.jsonl", Utterance)) == list(
            read_rows(path, Utterance)
        )

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
        self, tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any] | str]
    ) -> None:
        folder = tmp_path_factory.mktemp("fix")
        soundfile.write(folder / "a.wav", np.zeros(48_000), 16_000)
        (folder / "damaged.flac").write_bytes(b"fLaC")
        path = manifest(folder, *rows)
        in_lines = path.read_bytes().count(b"\n")
        fixed = fix(path, folder / "fixed.jsonl")
        assert fixed.kept + fixed.dropped == in_lines
        left = messages(folder / "fixed.jsonl", allow_empty=True)
        if segmented_files(path):  # of several parts one may be left, which looks too short
            left = [line for line in left if "must be the audio's 3 s" not in line]
        assert left == []

    def test_the_command(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = manifest(folder, {}, "x")
        args = ["--out", str(folder / "f.jsonl"), "--dropped", str(folder / "lost.jsonl")]
        assert fix_main([str(path), *args]) == 0
        assert len(list(read_rows(folder / "lost.jsonl", Rejected))) == 1
        for wrong in ([str(folder / "no.jsonl"), *args], [str(path), "--out", str(path)]):
            assert fix_main(wrong) == 2
            assert "must be" in capsys.readouterr().err
        assert list(read_rows(folder / "f.jsonl", Utterance)) != []
