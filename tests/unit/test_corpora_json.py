"""Importers of JSON Lines and CSV: NeMo manifests, the competition's files, audio folders."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from manifests.corpora import pasketti
from manifests.rows import Rejected, Utterance


class TestNemo:
    def test_keys_find_their_fields(self, corpus: Any, tmp_path: Path) -> None:
        corpus.audio(tmp_path / "wavs" / "a.wav", 2.0)
        corpus.rows(
            tmp_path / "train_manifest.json",
            {
                "audio_filepath": "wavs/a.wav",
                "duration": 2.0,
                "text": "hello",
                "lang": "de",
                "speaker": "s",
                "age": 6,
                "snr": 12.5,
                "extra": {"mic": 1},
            },
        )
        (((row,), rejected),) = corpus.imported("nemo", tmp_path).values()
        assert rejected == []
        assert row.audio_filepath == str(tmp_path / "wavs" / "a.wav")
        assert (row.text, row.language, row.speaker, row.age) == ("hello", "de", "s", "5-7")
        assert row.extra == {"age_years": 6, "lang": "de", "snr": 12.5, "mic": 1}

    def test_our_own_manifest_comes_back_as_it_is(self, corpus: Any, tmp_path: Path) -> None:
        path = corpus.audio(tmp_path / "a.wav")
        row = {"utt_id": "u", "audio_filepath": str(path), "duration": 1.0, "age": "5-7"}
        corpus.rows(tmp_path / "m.jsonl", row)
        ((rows, _),) = corpus.imported("nemo", tmp_path / "m.jsonl").values()
        assert rows == [Utterance(**row)]  # type: ignore[arg-type]

    def test_derived_ids_are_unique_and_the_same_every_time(
        self, corpus: Any, tmp_path: Path
    ) -> None:
        for folder in ("x", "y"):
            corpus.audio(tmp_path / folder / "a b.wav", 4.0)
        rows = [
            {"audio_filepath": "x/a b.wav", "offset": 0, "duration": 1.0},
            {"audio_filepath": "x/a b.wav", "offset": 1.0, "duration": 1.0},
            {"audio_filepath": "x/a b.wav", "offset": 1.0, "duration": 2.0},
            {"audio_filepath": "y/a b.wav"},
        ]
        corpus.rows(tmp_path / "m.json", *rows)
        ((first, rejected),) = corpus.imported("nemo", tmp_path / "m.json").values()
        assert [(row.offset, row.duration) for row in first] == [(0, 1), (1, 1), (1, 2), (0, 4)]
        assert len({row.utt_id for row in first}) == 4
        assert rejected == []
        corpus.rows(tmp_path / "m.json", *reversed(rows))
        ((again, _),) = corpus.imported("nemo", tmp_path / "m.json").values()
        assert {row.utt_id for row in again} == {row.utt_id for row in first}

    def test_bad_rows_cost_their_neighbours_nothing(self, corpus: Any, tmp_path: Path) -> None:
        corpus.audio(tmp_path / "a.wav")
        good = json.dumps({"utt_id": 7, "audio_filepath": "a.wav"})
        corpus.lines(
            tmp_path / "m.json", "{", "[]", '{"duration": 1}', '{"audio_filepath": "b.wav"}'
        )
        with (tmp_path / "m.json").open("a") as file:
            file.write(good + "\n" + good + "\n")
        ((rows, rejected),) = corpus.imported("nemo", tmp_path / "m.json").values()
        assert [(row.utt_id, row.extra) for row in rows] == [("7", {"nemo_id": 7})]
        assert [row.place for row in rejected] == [
            f"{tmp_path}/m.json:{n}" for n in (1, 2, 3, 4, 6)
        ]
        assert "must be unique" in rejected[-1].reason

    def test_loose_values_are_read_and_decisive_ones_never_lost(
        self, corpus: Any, tmp_path: Path
    ) -> None:
        corpus.audio(tmp_path / "a.wav", 4.0)
        part = {"audio_filepath": "a.wav", "duration": "1.5"}
        corpus.rows(
            tmp_path / "m.json",
            part | {"offset": "2", "speaker": 7, "text": 3, "noisy": "true", "source": ""},
            part | {"offset": "late"},
            part | {"offset": 1, "text": ["a"]},
            part | {"offset": 2.5, "session": {"a": 1}},
        )
        # Also in the middle, where files were put together.
        bad = b"".join(
            b"\xef\xbb\xbf" + line for line in (tmp_path / "m.json").read_bytes().splitlines(True)
        )
        (tmp_path / "m.json").write_bytes(bad + b'{"a":' * 3000 + b"\n")
        ((rows, rejected),) = corpus.imported("nemo", tmp_path / "m.json").values()
        first, second = rows
        assert (first.offset, first.duration, first.speaker) == (2.0, 1.5, "7")
        assert (first.text, first.noisy, first.source) == ("3", True, None)
        assert (second.session, second.extra) == (None, {"session": {"a": 1}})
        assert [row.reason.partition(", must")[0][:30] for row in rejected] == [
            "offset is 'late'",
            "text is ['a']",
            "line is '" + '{"a":' * 4 + "{",
        ]


class TestPasketti:
    def row(self, corpus: Any, src: Path, **fields: Any) -> dict[str, Any]:
        path = corpus.audio(src / "audio" / f"{fields.get('utterance_id', 'U_1')}.flac", 1.5)
        data = path.read_bytes()
        return {
            "utterance_id": "U_1",
            "child_id": "C_1",
            "session_id": "S_1",
            "audio_path": f"audio/{path.name}",
            "audio_duration_sec": 1.5,
            "age_bucket": "5-7",
            "md5_hash": hashlib.md5(data).hexdigest(),
            "filesize_bytes": len(data),
            "orthographic_text": "he goed home",
            **fields,
        }

    def test_both_files(self, corpus: Any, tmp_path: Path) -> None:
        train = self.row(corpus, tmp_path)
        blind = self.row(corpus, tmp_path, utterance_id="U_2", age_bucket="unknown", batch=3)
        del blind["orthographic_text"]
        corpus.rows(tmp_path / "train_word_transcripts.jsonl", train)
        corpus.rows(tmp_path / "utterance_metadata.jsonl", blind)
        found = corpus.imported("pasketti", tmp_path)
        assert found["train"] == (
            [
                Utterance(
                    utt_id="U_1",
                    audio_filepath=str(tmp_path / "audio" / "U_1.flac"),
                    duration=1.5,
                    text="he goed home",
                    speaker="C_1",
                    session="S_1",
                    age="5-7",
                    source="pasketti",
                )
            ],
            [],
        )
        (row,), _ = found["test"]
        assert (row.text, row.age, row.extra) == (None, None, {"batch": 3})

    def test_faults_are_rejected_one_by_one(self, corpus: Any, tmp_path: Path) -> None:
        missing = self.row(corpus, tmp_path, utterance_id="U_5")
        (tmp_path / missing["audio_path"]).unlink()
        corpus.rows(
            tmp_path / "train_word_transcripts.jsonl",
            self.row(corpus, tmp_path, age_bucket="13+"),
            self.row(corpus, tmp_path, utterance_id="U_2", audio_path=None),
            self.row(corpus, tmp_path, utterance_id="U 3"),
            self.row(corpus, tmp_path, utterance_id="U_4", audio_duration_sec=1.7),
            missing,
        )
        rows, rejected = corpus.imported("pasketti", tmp_path)["train"]
        assert rows[0].utt_id.startswith("U_3-")
        assert rows[0].extra == {"utterance_id": "U 3"}
        assert (rows[1].duration, rows[1].extra) == (1.5, {"declared_duration": 1.7})
        assert [(row.utt_id, row.reason.split(",")[0]) for row in rejected] == [
            ("U_1", "age_bucket is '13+'"),
            ("U_2", "audio_path is None"),
            ("U_5", f"audio_filepath '{tmp_path}/audio/U_5.flac': no such file"),
        ]

    def test_sums_and_sizes_are_verified_on_demand(
        self, corpus: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        labels = corpus.rows(
            tmp_path / "train_word_transcripts.jsonl",
            self.row(corpus, tmp_path),
            self.row(corpus, tmp_path, utterance_id="U_2", md5_hash="0" * 32),
            self.row(corpus, tmp_path, utterance_id="U_3", filesize_bytes=1),
            self.row(corpus, tmp_path, utterance_id="U_4", audio_duration_sec=3),
        )
        assert Counter(len(part) for part in corpus.imported("pasketti", tmp_path)["train"]) == {
            4: 1,
            0: 1,
        }
        strict = list(pasketti.import_corpus(tmp_path, verify=True)["train"])
        assert [type(row) for row in strict] == [Utterance, Rejected, Rejected, Utterance]
        assert pasketti.main([str(tmp_path)]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(",")[0] for line in lines] == [
            f"{labels}:2: md5_hash is '{'0' * 32}'",
            f"{labels}:3: filesize_bytes is 1",
            "U_4: audio_duration_sec is 3.0 s",
        ]

    def test_the_command_on_a_sound_folder_and_on_none(
        self, corpus: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        corpus.rows(tmp_path / "train_word_transcripts.jsonl", self.row(corpus, tmp_path))
        assert pasketti.main([str(tmp_path)]) == 0
        assert pasketti.main([str(tmp_path / "none")]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1


class TestAudiofolder:
    def test_splits_with_their_own_metadata(self, corpus: Any, tmp_path: Path) -> None:
        corpus.audio(tmp_path / "train" / "a.wav")
        corpus.audio(tmp_path / "validation" / "a.wav")
        (tmp_path / "train" / "metadata.csv").write_text(
            'file_name,transcription,speaker_id,age,mic\na.wav,"one, two",s1,6,\n',
            encoding="utf-8-sig",
        )
        corpus.rows(tmp_path / "validation" / "metadata.jsonl", {"file_name": "a.wav", "text": ""})
        found = corpus.imported("audiofolder", tmp_path)
        ((train,), _), ((dev,), _) = found["train"], found["dev"]
        assert (train.text, train.speaker, train.age) == ("one, two", "s1", "5-7")
        assert train.extra == {"age_years": 6}
        assert (dev.text, dev.speaker) == ("", None)
        assert train.utt_id != dev.utt_id

    def test_rows_of_a_csv_fail_one_by_one(self, corpus: Any, tmp_path: Path) -> None:
        for name in "abcdef":
            corpus.audio(tmp_path / f"{name}.wav")
        lines = [b"file_name,text,speaker", b'a.wav,"two\nlines, ""quoted""",s', b"b.wav,x"]
        lines += [b"c.wav,x,s,s", b"d.wav,caf\xe9,s", b"e.wav," + b"x" * 200_000 + b",s", b""]
        (tmp_path / "metadata.csv").write_bytes(b"\r\n".join([*lines, b"f.wav,last,", b""]))
        (tmp_path / os.fsdecode(b"g\xff.wav")).write_bytes(b"RIFF")
        rows, rejected = corpus.imported("audiofolder", tmp_path)["train"]
        assert [(row.text, row.speaker) for row in rows] == [
            ('two\nlines, "quoted"', "s"),
            ("last", None),
        ]
        reasons = {row.place.removeprefix(f"{tmp_path}/"): row.reason for row in rejected}
        assert reasons["metadata.csv:4"] == "row has 2 columns, must have 3 as the header"
        assert reasons["metadata.csv:5"] == "row has 4 columns, must have 3 as the header"
        assert reasons["metadata.csv:6"] == "'caf\\udce9', must be UTF-8"
        assert reasons["metadata.csv:7"] == "field larger than field limit (131072)"
        assert reasons["g\\xff.wav"] == "audio file, must have a row in metadata"
        assert len(reasons) == 9  # b to e: their row and their file

    @pytest.mark.parametrize(
        ("lines", "kept", "reasons"),
        [
            (["a.wav,'one\"", 'b.wav,"two', "c.wav,three"], ["a.wav"], ["unexpected end of data"]),
            (['a.wav,"one', 'b.wav,"two"', "c.wav,3"], ["c.wav"], ["',' expected after '\"'"]),
        ],
    )
    def test_a_quote_that_is_not_closed_takes_no_rows_in_silence(
        self, corpus: Any, tmp_path: Path, lines: list[str], kept: list[str], reasons: list[str]
    ) -> None:
        for name in "abc":
            corpus.audio(tmp_path / f"{name}.wav")
        corpus.lines(tmp_path / "metadata.csv", "file_name,text", *lines)
        rows, rejected = corpus.imported("audiofolder", tmp_path)["train"]
        assert [Path(row.audio_filepath).name for row in rows] == kept
        said = [row.reason for row in rejected if "metadata.csv:" in row.place]
        assert said == reasons

    def test_one_metadata_for_all_splits(self, corpus: Any, tmp_path: Path) -> None:
        for name in ("train/a.wav", "test/b.wav", "other/c.wav", "d.wav"):
            corpus.audio(tmp_path / name)
        rows = [{"file_name": n, "sentence": n} for n in ("train/a.wav", "test/b.wav", "d.wav")]
        corpus.rows(tmp_path / "metadata.jsonl", *rows, {"file_name": "gone.wav"}, {"text": "x"})
        found = corpus.imported("audiofolder", tmp_path)
        assert [row.text for row in found["train"][0]] == ["train/a.wav", "d.wav"]
        assert [row.text for row in found["test"][0]] == ["test/b.wav"]
        assert found["train"][0][1].utt_id == "d"
        assert [row.reason for row in found["train"][1]] == [
            f"audio_filepath '{tmp_path}/gone.wav': no such file, must exist",
            "file_name is None, must name a file",
            "audio file, must have a row in metadata",
        ]
        assert found["train"][1][2].place == f"{tmp_path}/other/c.wav"

    def test_files_outside_the_folder_are_an_error_of_their_row(
        self, corpus: Any, tmp_path: Path
    ) -> None:
        corpus.audio(tmp_path / "in" / "a.wav")
        corpus.audio(tmp_path / "b.wav")
        corpus.rows(
            tmp_path / "in" / "metadata.jsonl",
            {"file_name": "../b.wav", "text": "b"},
            {"file_name": "a.wav", "text": "a"},
        )
        rows, rejected = corpus.imported("audiofolder", tmp_path / "in")["train"]
        assert [row.text for row in rows] == ["a"]
        assert "must lie in" in rejected[0].reason
