"""Importers: the real speechocean762, and small corpora in each of the other layouts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from manifests.corpora import REGISTRY, import_corpus, importer, pasketti
from manifests.rows import Rejected, Utterance, utterance_problems

Imported = dict[str, tuple[list[Utterance], list[Rejected]]]


def audio(path: Path, seconds: float = 1.0, rate: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(seconds * rate), np.float32), rate)
    return path


def imported(name: str, src: Path) -> Imported:
    """Return each set's utterances and what was rejected; every utterance is sound."""
    found: Imported = {}
    for set_name, rows in import_corpus(name, src).items():
        everything = list(rows)
        utterances = [row for row in everything if isinstance(row, Utterance)]
        assert [problem for row in utterances for problem in utterance_problems(row)] == []
        assert all(Path(row.audio_filepath).is_absolute() for row in utterances)
        found[set_name] = utterances, [row for row in everything if isinstance(row, Rejected)]
    return found


def write_lines(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_json(path: Path, *rows: dict[str, Any]) -> Path:
    return write_lines(path, *(json.dumps(row) for row in rows))


class TestRegistry:
    def test_an_unknown_corpus_lists_the_known(self) -> None:
        with pytest.raises(
            ValueError, match="corpus is 'myst', must be one of: audiofolder, kaldi"
        ):
            importer("myst")

    @pytest.mark.parametrize("name", sorted(REGISTRY))
    def test_every_corpus_has_an_importer(self, name: str) -> None:
        assert callable(importer(name))

    @pytest.mark.parametrize("name", sorted(set(REGISTRY) - {"mini"}))
    def test_a_folder_of_another_kind_is_one_clear_error(self, name: str, tmp_path: Path) -> None:
        for src in (tmp_path, tmp_path / "missing"):
            with pytest.raises(ValueError, match="must"):
                import_corpus(name, src)


class TestSpeechocean:
    def test_the_real_corpus(self, shared_data: Path) -> None:
        found = imported("speechocean762", shared_data / "speechocean762")
        assert {name: len(rows) for name, (rows, _) in found.items()} == {
            "train": 1160,
            "adults": 1340,
            "test": 640,
        }
        assert [rejected for _, rejected in found.values() if rejected] == []
        speakers = {name: {row.speaker for row in rows} for name, (rows, _) in found.items()}
        assert {name: len(ids) for name, ids in speakers.items()} == {
            "train": 58,
            "adults": 67,
            "test": 32,
        }
        assert len(set().union(*speakers.values())) == 58 + 67 + 32
        hours = {n: sum(row.duration for row in rows) / 3600 for n, (rows, _) in found.items()}
        assert hours["train"] + hours["adults"] == pytest.approx(2.88, abs=0.01)
        assert hours["test"] == pytest.approx(0.62, abs=0.01)
        first = found["test"][0][0]
        assert (first.utt_id, first.speaker, first.age) == ("000030012", "0003", "5-7")
        assert (first.text, first.source) == ("MARK IS GOING TO SEE ELEPHANT", "speechocean762")
        assert first.extra == {"age_years": 6, "gender": "m"}

    def test_children_and_adults_part_between_15_and_16(self, tmp_path: Path) -> None:
        self.corpus(tmp_path)
        found = imported("speechocean762", tmp_path)
        assert [row.utt_id for row in found["train"][0]] == ["child"]
        assert [row.utt_id for row in found["adults"][0]] == ["adult"]
        assert [row.utt_id for row in found["test"][0]] == ["child", "adult"]

    def test_who_has_no_age_is_named_once(self, tmp_path: Path) -> None:
        self.corpus(tmp_path)
        write_lines(tmp_path / "train" / "spk2age", "c 15")
        found = imported("speechocean762", tmp_path)
        (rejected,) = found["train"][1] + found["adults"][1]
        assert rejected == Rejected(
            place=f"{tmp_path}/train/wav.scp:2",
            reason="speaker is 'a', must have an age in spk2age",
            utt_id="adult",
        )

    def corpus(self, src: Path) -> None:
        """The full corpus's layout: WAV in WAVE/SPEAKERxxxx, tables parted by tabs."""
        for part in ("train", "test"):
            write_lines(
                src / part / "wav.scp",
                "child\tWAVE/SPEAKERc/child.WAV",
                "adult\tWAVE/SPEAKERa/adult.WAV",
            )
            write_lines(src / part / "text", "child\tHELLO", "adult\tGOOD DAY")
            write_lines(src / part / "utt2spk", "child\tc", "adult\ta")
            write_lines(src / part / "spk2age", "c\t15", "a\t16")
        audio(src / "WAVE" / "SPEAKERc" / "child.WAV")
        audio(src / "WAVE" / "SPEAKERa" / "adult.WAV")


class TestKaldi:
    def test_a_plain_directory(self, tmp_path: Path) -> None:
        audio(tmp_path / "wavs" / "a.wav", 2.0)
        absolute = audio(tmp_path / "b.wav", 1.0, rate=8_000)
        data = tmp_path / "data" / "train"
        # Relative to where the recipe is run, two folders above.
        write_lines(data / "wav.scp", "a wavs/a.wav", f"b {absolute}")
        write_lines(data / "text", "a one  two", "b")
        write_lines(data / "utt2spk", "a s1")
        write_lines(data / "spk2age", "s1 7.5")
        (name, (rows, rejected)), *others = imported("kaldi", data).items()
        assert (name, rejected, others) == ("train", [], [])
        assert [(row.utt_id, row.duration, row.text) for row in rows] == [
            ("a", 2.0, "one  two"),
            ("b", 1.0, ""),
        ]
        assert (rows[0].speaker, rows[0].age, rows[0].extra) == ("s1", "5-7", {"age_years": 7.5})
        assert rows[1].speaker is None

    def test_a_folder_of_directories(self, tmp_path: Path) -> None:
        path = audio(tmp_path / "a.wav")
        for name in ("dev", "train"):
            write_lines(tmp_path / "data" / name / "wav.scp", f"a {path}")
        assert list(imported("kaldi", tmp_path / "data")) == ["dev", "train"]

    def test_segments(self, tmp_path: Path) -> None:
        audio(tmp_path / "r.wav", 10.0)
        write_lines(tmp_path / "wav.scp", "r r.wav")
        write_lines(
            tmp_path / "segments",
            "first r 0 2.5",
            "rest r 8 -1",
            "over r 9 12",
            "outside r 11 12",
            "backwards r 3 2",
            "other x 0 1",
            "short r",
        )
        rows, rejected = imported("kaldi", tmp_path)[tmp_path.name]
        assert [(row.utt_id, row.offset, row.duration) for row in rows] == [
            ("first", 0.0, 2.5),
            ("rest", 8.0, 2.0),
            ("over", 9.0, 1.0),
        ]
        assert rows[2].extra == {"declared_duration": 3.0}
        assert [(row.place.rpartition(":")[2], row.utt_id, row.reason) for row in rejected] == [
            ("4", "outside", "offset is 11 s, must lie inside the audio (10 s)"),
            ("5", "backwards", "segment is 3 to 2 s, must start >= 0 and end later"),
            ("6", "other", "recording is 'x', must be in wav.scp"),
            ("7", "short", "segment is 'r', must be 'recording start end'"),
        ]

    @pytest.mark.parametrize("value", ["sph2pipe -f wav a.sph |", "raw.ark:17", "-", ""])
    def test_what_is_no_path_is_refused(self, tmp_path: Path, value: str) -> None:
        write_lines(tmp_path / "wav.scp", "a a.wav", f"b {value}")
        with pytest.raises(ValueError, match=r"wav\.scp:2: '.*', must be a plain path"):
            import_corpus("kaldi", tmp_path)

    def test_nothing_is_lost_silently(self, tmp_path: Path) -> None:
        audio(tmp_path / "a.wav")
        (tmp_path / "b.wav").write_bytes(b"RIFF")
        write_lines(tmp_path / "wav.scp", "a a.wav", "b b.wav", "c c.wav", "a a.wav", "", "A a.wav")
        write_lines(tmp_path / "text", "a one", "d four")
        (tmp_path / "utt2spk").write_bytes(b"a \xff\n")
        rows, rejected = imported("kaldi", tmp_path)[tmp_path.name]
        assert [row.utt_id for row in rows] == ["a"]
        assert [row.place.removeprefix(f"{tmp_path}/") for row in rejected] == [
            "wav.scp:2",
            "wav.scp:3",
            "wav.scp:6",
            "wav.scp:4",
            "wav.scp:5",
            "utt2spk:1",
            "text:2",
        ]

    def test_ids_are_made_fit_and_kept(self, tmp_path: Path) -> None:
        audio(tmp_path / "a.wav")
        write_lines(tmp_path / "wav.scp", "k\u00e4se/1 a.wav")
        ((row,), _) = imported("kaldi", tmp_path)[tmp_path.name]
        assert row.utt_id.startswith("k_se_1-")
        assert row.extra == {"kaldi_id": "k\u00e4se/1"}


class TestNemo:
    def test_keys_find_their_fields(self, tmp_path: Path) -> None:
        audio(tmp_path / "wavs" / "a.wav", 2.0)
        write_json(
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
        (((row,), rejected),) = imported("nemo", tmp_path).values()
        assert rejected == []
        assert row.audio_filepath == str(tmp_path / "wavs" / "a.wav")
        assert (row.text, row.language, row.speaker, row.age) == ("hello", "de", "s", "5-7")
        assert row.extra == {"age_years": 6, "lang": "de", "snr": 12.5, "mic": 1}

    def test_our_own_manifest_comes_back_as_it_is(self, tmp_path: Path) -> None:
        path = audio(tmp_path / "a.wav")
        row = {"utt_id": "u", "audio_filepath": str(path), "duration": 1.0, "age": "5-7"}
        write_json(tmp_path / "m.jsonl", row)
        ((rows, _),) = imported("nemo", tmp_path / "m.jsonl").values()
        assert rows == [Utterance(**row)]  # type: ignore[arg-type]

    def test_derived_ids_are_unique_and_the_same_every_time(self, tmp_path: Path) -> None:
        for folder in ("x", "y"):
            audio(tmp_path / folder / "a b.wav", 4.0)
        rows = [
            {"audio_filepath": "x/a b.wav", "offset": 0, "duration": 1.0},
            {"audio_filepath": "x/a b.wav", "offset": 1.0, "duration": 1.0},
            {"audio_filepath": "x/a b.wav", "offset": 1.0, "duration": 2.0},
            {"audio_filepath": "y/a b.wav"},
        ]
        write_json(tmp_path / "m.json", *rows)
        ((first, rejected),) = imported("nemo", tmp_path / "m.json").values()
        assert [(row.offset, row.duration) for row in first] == [(0, 1), (1, 1), (1, 2), (0, 4)]
        assert len({row.utt_id for row in first}) == 4
        assert rejected == []
        write_json(tmp_path / "m.json", *reversed(rows))
        ((again, _),) = imported("nemo", tmp_path / "m.json").values()
        assert {row.utt_id for row in again} == {row.utt_id for row in first}

    def test_bad_rows_cost_their_neighbours_nothing(self, tmp_path: Path) -> None:
        audio(tmp_path / "a.wav")
        good = json.dumps({"utt_id": 7, "audio_filepath": "a.wav"})
        write_lines(
            tmp_path / "m.json", "{", "[]", '{"duration": 1}', '{"audio_filepath": "b.wav"}'
        )
        with (tmp_path / "m.json").open("a") as file:
            file.write(good + "\n" + good + "\n")
        ((rows, rejected),) = imported("nemo", tmp_path / "m.json").values()
        assert [(row.utt_id, row.extra) for row in rows] == [("7", {"nemo_id": 7})]
        assert [row.place for row in rejected] == [
            f"{tmp_path}/m.json:{n}" for n in (1, 2, 3, 4, 6)
        ]
        assert "must be unique" in rejected[-1].reason


class TestPasketti:
    def row(self, src: Path, **fields: Any) -> dict[str, Any]:
        path = audio(src / "audio" / f"{fields.get('utterance_id', 'U_1')}.flac", 1.5)
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

    def test_both_files(self, tmp_path: Path) -> None:
        train = self.row(tmp_path)
        blind = self.row(tmp_path, utterance_id="U_2", age_bucket="unknown", batch=3)
        del blind["orthographic_text"]
        write_json(tmp_path / "train_word_transcripts.jsonl", train)
        write_json(tmp_path / "utterance_metadata.jsonl", blind)
        found = imported("pasketti", tmp_path)
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

    def test_faults_are_rejected_one_by_one(self, tmp_path: Path) -> None:
        missing = self.row(tmp_path, utterance_id="U_5")
        (tmp_path / missing["audio_path"]).unlink()
        write_json(
            tmp_path / "train_word_transcripts.jsonl",
            self.row(tmp_path, age_bucket="13+"),
            self.row(tmp_path, utterance_id="U_2", audio_path=None),
            self.row(tmp_path, utterance_id="U 3"),
            self.row(tmp_path, utterance_id="U_4", audio_duration_sec=1.7),
            missing,
        )
        rows, rejected = imported("pasketti", tmp_path)["train"]
        assert rows[0].utt_id.startswith("U_3-")
        assert rows[0].extra == {"utterance_id": "U 3"}
        assert (rows[1].duration, rows[1].extra) == (1.5, {"declared_duration": 1.7})
        assert [(row.utt_id, row.reason.split(",")[0]) for row in rejected] == [
            ("U_1", "age_bucket is '13+'"),
            ("U_2", "audio_path is None"),
            ("U_5", f"audio_filepath '{tmp_path}/audio/U_5.flac': no such file"),
        ]

    def test_sums_and_sizes_are_verified_on_demand(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        labels = write_json(
            tmp_path / "train_word_transcripts.jsonl",
            self.row(tmp_path),
            self.row(tmp_path, utterance_id="U_2", md5_hash="0" * 32),
            self.row(tmp_path, utterance_id="U_3", filesize_bytes=1),
            self.row(tmp_path, utterance_id="U_4", audio_duration_sec=3),
        )
        assert Counter(len(part) for part in imported("pasketti", tmp_path)["train"]) == {
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
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_json(tmp_path / "train_word_transcripts.jsonl", self.row(tmp_path))
        assert pasketti.main([str(tmp_path)]) == 0
        assert pasketti.main([str(tmp_path / "none")]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1


class TestAudiofolder:
    def test_splits_with_their_own_metadata(self, tmp_path: Path) -> None:
        audio(tmp_path / "train" / "a.wav")
        audio(tmp_path / "validation" / "a.wav")
        (tmp_path / "train" / "metadata.csv").write_text(
            'file_name,transcription,speaker_id,age,mic\na.wav,"one, two",s1,6,\n',
            encoding="utf-8-sig",
        )
        write_json(tmp_path / "validation" / "metadata.jsonl", {"file_name": "a.wav", "text": ""})
        found = imported("audiofolder", tmp_path)
        ((train,), _), ((dev,), _) = found["train"], found["dev"]
        assert (train.text, train.speaker, train.age) == ("one, two", "s1", "5-7")
        assert train.extra == {"age_years": 6}
        assert (dev.text, dev.speaker) == ("", None)
        assert train.utt_id != dev.utt_id

    def test_one_metadata_for_all_splits(self, tmp_path: Path) -> None:
        for name in ("train/a.wav", "test/b.wav", "other/c.wav", "d.wav"):
            audio(tmp_path / name)
        rows = [{"file_name": n, "sentence": n} for n in ("train/a.wav", "test/b.wav", "d.wav")]
        write_json(tmp_path / "metadata.jsonl", *rows, {"file_name": "gone.wav"}, {"text": "x"})
        found = imported("audiofolder", tmp_path)
        assert [row.text for row in found["train"][0]] == ["train/a.wav", "d.wav"]
        assert [row.text for row in found["test"][0]] == ["test/b.wav"]
        assert found["train"][0][1].utt_id == "d"
        assert [row.reason for row in found["train"][1]] == [
            f"audio_filepath '{tmp_path}/gone.wav': no such file, must exist",
            "file_name is None, must name a file",
            "audio file, must have a row in metadata",
        ]
        assert found["train"][1][2].place == f"{tmp_path}/other/c.wav"

    def test_files_outside_the_folder_are_an_error_of_their_row(self, tmp_path: Path) -> None:
        audio(tmp_path / "in" / "a.wav")
        audio(tmp_path / "b.wav")
        write_json(
            tmp_path / "in" / "metadata.jsonl",
            {"file_name": "../b.wav", "text": "b"},
            {"file_name": "a.wav", "text": "a"},
        )
        rows, rejected = imported("audiofolder", tmp_path / "in")["train"]
        assert [row.text for row in rows] == ["a"]
        assert "must lie in" in rejected[0].reason
