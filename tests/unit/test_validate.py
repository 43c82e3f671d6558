"""Validation lists every error of every row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from manifests import NBest, RowError, Utterance, read_rows
from manifests.probe import Probe, audio_fault, probe
from manifests.validate import guess_row_type, main, validate

REPO = Path(__file__).parents[2]


def messages(path: Path, **options: Any) -> list[str]:
    found = [str(problem) for problem in validate(path, **options)]
    assert all(line.startswith(f"{path}:") for line in found)
    return [line.removeprefix(f"{path}:") for line in found]


class TestRows:
    def test_a_sound_manifest(self, corpus: Any, folder: Path) -> None:
        path = corpus.manifest(
            folder,
            {"text": "a"},
            {"duration": 3.09, "audio_filepath": str(folder / "a.flac"), "text": "I"},
            {"duration": 2.91, "audio_filepath": "a.opus"},
            {"audio_filepath": "a.mp3", "age": "3-4", "extra": {"any": [1]}},
        )
        assert messages(path) == []

    def test_every_error_of_every_row_is_listed(self, corpus: Any, folder: Path) -> None:
        path = corpus.manifest(
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

    def test_what_a_reader_would_take_silently(self, corpus: Any, folder: Path) -> None:
        path = corpus.manifest(
            folder,
            '{"utt_id":"a","text":"x","audio_filepath":"a.wav","duration":3,"text":"y"}',
            {"text": 'a "text" with "text": and "text" in it', "extra": {"text": "text"}},
            {"speaker": "", "language": ""},
            '{"duration":"3","duration":3}',
            '{"utt_id" : "e", "text" : "x", "audio_filepath" : "e", "text" : "y", "duration" : 3}',
        )
        assert messages(path, audio=False) == [
            "1: field 'text' comes twice, must come once",
            "3: speaker is '', must be left out where unknown",
            "3: language is '', must be left out where unknown",
            "4: field 'duration' comes twice, must come once",
            "4: field 'utt_id' is missing, must be there",
            "4: field 'audio_filepath' is missing, must be there",
            "5: field 'text' comes twice, must come once",
        ]

    def test_no_bytes_stop_the_list(self, corpus: Any, folder: Path) -> None:
        sound = '"audio_filepath":"a.wav","duration":3}'
        deep = '{"utt_id":"d","extra":' + '{"a":' * 3000 + "1" + "}" * 3000 + "," + sound
        path = corpus.manifest(folder, '\ufeff{"utt_id":"a",' + sound, deep, {"utt_id": "A"})
        first, second, third = messages(path)
        assert first == "1: line begins with a byte order mark, must not"
        assert second.startswith("2: line is '{")
        assert "recursion" in second
        assert third.endswith("(first on line 1)")
        with pytest.raises(RowError, match=r"m\.jsonl:1: line begins with a byte order mark"):
            list(read_rows(path, Utterance))

    def test_repeated_ids_name_the_first_line(self, corpus: Any, folder: Path) -> None:
        rule = "must be unique without regard to case (first on line 1)"
        path = corpus.manifest(
            folder, {"utt_id": "A"}, {}, {"utt_id": "a"}, {"utt_id": "A", "x": 1}
        )
        assert [line for line in messages(path) if "unique" in line] == [
            f"3: utt_id is 'a', {rule}",
            f"4: utt_id is 'A', {rule}",
        ]

    def test_repeats_are_found_across_chunks(self, corpus: Any, folder: Path) -> None:
        path = corpus.manifest(folder, *({} for _ in range(5000)), {"utt_id": "u1"})
        (line,) = messages(path, audio=False)
        assert line.startswith("5001: utt_id is 'u1'")

    def test_silence_is_allowed_on_demand_and_blank_text_never(
        self, corpus: Any, folder: Path
    ) -> None:
        path = corpus.manifest(folder, {"text": ""}, {"text": "\t"}, {"text": None}, {})
        assert [line.split(":")[0] for line in messages(path)] == ["1", "2"]
        assert [line.split(":")[0] for line in messages(path, allow_empty=True)] == ["2"]

    def test_what_was_heard(self, tmp_path: Path) -> None:
        good = {"utt_id": "a", "system": "s", "hyps": [{"text": ""}]}
        words = [{"text": "a", "confidence": 2}, {"text": "b", "start": 2, "end": 1}]
        path = tmp_path / "h.jsonl"
        rows = [good, good, good | {"hyps": []}, good | {"hyps": [{"text": "ab", "words": words}]}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert guess_row_type(path) is NBest
        path.write_text(json.dumps(good), encoding="utf-8-sig")
        assert guess_row_type(path) is NBest
        assert messages(path) == ["1: line begins with a byte order mark, must not"]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = [line for line in messages(path) if "unique" not in line]
        assert found == [
            "3: hyps is empty, must hold at least one hypothesis (silence is text '')",
            "4: confidence is 2, must lie in [0, 1]",
            "4: word ends at 1 s, before its start 2 s",
        ]

    def test_lists_and_networks(self, corpus: Any, tmp_path: Path) -> None:
        """All files beside a manifest pass, so `validate DIR/*.jsonl` tells of what is wrong."""
        listed = {"place": "m.jsonl:3", "reason": "row repeats line 1", "utt_id": "a"}
        lost = corpus.rows(tmp_path / "m.dropped.jsonl", listed, listed, {"place": 1, "reason": ""})
        assert messages(lost) == ["3: place is 1, must be `str`, not `int`"]
        arcs = [{"text": "a", "share": 2}]
        network = {"utt_id": "a", "system": "rover", "slots": [arcs]}
        path = corpus.rows(tmp_path / "n.jsonl", network, network | {"utt_id": "A", "slots": []})
        first, second = messages(path)
        assert first == "1: share is 2, must lie in [0, 1]"
        assert second.startswith("2: utt_id is 'A', must be unique")

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
    def test_what_disagrees(
        self, corpus: Any, folder: Path, row: dict[str, Any], message: str
    ) -> None:
        path = corpus.manifest(folder, row)
        (line,) = messages(path)
        assert line.startswith(f"1: {message}")
        assert messages(path, audio=False) == []

    def test_parts_of_a_file_may_be_shorter_than_it(self, corpus: Any, folder: Path) -> None:
        parts = {"offset": 0, "duration": 1}, {"offset": 1, "duration": 2.05}
        assert messages(corpus.manifest(folder, *parts)) == []
        assert messages(corpus.manifest(folder, parts[0])) != []

    def test_a_row_wrong_in_itself_still_has_its_file_looked_for(
        self, corpus: Any, folder: Path
    ) -> None:
        path = corpus.manifest(
            folder, {"duration": "3", "audio_filepath": "no.wav"}, {"duration": -1}
        )
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
        assert probe(str(path)).duration == pytest.approx(3.0, abs=0.01)
        path.write_bytes(path.read_bytes()[:-2_000])
        assert probe(str(path)).problem is not None


class TestCommand:
    def run(self, *args: str | Path, code: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "manifests.validate", *map(str, args)]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done

    def test_exit_codes_and_streams(self, corpus: Any, folder: Path) -> None:
        good = corpus.manifest(folder, {"text": ""}, name="good.jsonl")
        bad = corpus.manifest(folder, {"duration": 9, "speaker": 7}, name="bad.jsonl")
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

    def test_wrong_jobs_are_one_line(
        self, corpus: Any, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(corpus.manifest(folder, {}, {})), "--jobs", "0"]) == 2
        assert capsys.readouterr().err == "manifests.validate: jobs is 0, must be > 0\n"

    def test_head_may_close_the_pipe(self, corpus: Any, folder: Path) -> None:
        path = corpus.manifest(folder, *("x" for _ in range(20_000)))
        validation = f"{sys.executable} -m manifests.validate {path}"
        done = subprocess.run(
            ["bash", "-c", f"{validation} | head -1"], cwd=REPO, capture_output=True, text=True
        )
        assert done.stdout.count("\n") == 1
        assert "Traceback" not in done.stderr

    def test_the_call_is_the_command(
        self, corpus: Any, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = corpus.manifest(folder, {"duration": 9})
        assert main([str(path)]) == 1
        assert capsys.readouterr().out == "".join(f"{p}\n" for p in validate(path))
