"""Importers: the registry, the real speechocean762, and Kaldi data directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manifests.corpora import REGISTRY, import_corpus, importer
from manifests.rows import Rejected


class TestRegistry:
    def test_an_unknown_corpus_lists_the_known(self, corpus: Any) -> None:
        with pytest.raises(
            ValueError, match="corpus is 'myst', must be one of: audiofolder, kaldi"
        ):
            importer("myst")

    @pytest.mark.parametrize("name", sorted(REGISTRY))
    def test_every_corpus_has_an_importer(self, name: str) -> None:
        assert callable(importer(name))

    @pytest.mark.parametrize("name", sorted(set(REGISTRY) - {"mini"}))
    def test_a_folder_of_another_kind_is_one_clear_error(
        self, corpus: Any, name: str, tmp_path: Path
    ) -> None:
        for src in (tmp_path, tmp_path / "missing"):
            with pytest.raises(ValueError, match="must"):
                import_corpus(name, src)


class TestSpeechocean:
    def test_the_real_corpus(self, corpus: Any, shared_data: Path) -> None:
        found = corpus.imported("speechocean762", shared_data / "speechocean762")
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

    def test_children_and_adults_part_between_15_and_16(self, corpus: Any, tmp_path: Path) -> None:
        self.full_layout(corpus, tmp_path)
        found = corpus.imported("speechocean762", tmp_path)
        assert [row.utt_id for row in found["train"][0]] == ["child"]
        assert [row.utt_id for row in found["adults"][0]] == ["adult"]
        assert [row.utt_id for row in found["test"][0]] == ["child", "adult"]

    def test_who_has_no_age_is_named_once(self, corpus: Any, tmp_path: Path) -> None:
        self.full_layout(corpus, tmp_path)
        corpus.lines(tmp_path / "train" / "spk2age", "c 15")
        found = corpus.imported("speechocean762", tmp_path)
        (rejected,) = found["train"][1] + found["adults"][1]
        assert rejected == Rejected(
            place=f"{tmp_path}/train/wav.scp:2",
            reason="speaker is 'a', must have an age in spk2age",
            utt_id="adult",
        )

    def full_layout(self, corpus: Any, src: Path) -> None:
        """The full corpus's layout: WAV in WAVE/SPEAKERxxxx, tables parted by tabs."""
        for part in ("train", "test"):
            corpus.lines(
                src / part / "wav.scp",
                "child\tWAVE/SPEAKERc/child.WAV",
                "adult\tWAVE/SPEAKERa/adult.WAV",
            )
            corpus.lines(src / part / "text", "child\tHELLO", "adult\tGOOD DAY")
            corpus.lines(src / part / "utt2spk", "child\tc", "adult\ta")
            corpus.lines(src / part / "spk2age", "c\t15", "a\t16")
        corpus.audio(src / "WAVE" / "SPEAKERc" / "child.WAV")
        corpus.audio(src / "WAVE" / "SPEAKERa" / "adult.WAV")


class TestKaldi:
    def test_a_plain_directory(self, corpus: Any, tmp_path: Path) -> None:
        corpus.audio(tmp_path / "wavs" / "a.wav", 2.0)
        absolute = corpus.audio(tmp_path / "b.wav", 1.0, rate=8_000)
        data = tmp_path / "data" / "train"
        # Relative to where the recipe is run, two folders above.
        corpus.lines(data / "wav.scp", "a wavs/a.wav", f"b {absolute}")
        corpus.lines(data / "text", "a one  two", "b")
        corpus.lines(data / "utt2spk", "a s1")
        corpus.lines(data / "spk2age", "s1 7.5")
        (name, (rows, rejected)), *others = corpus.imported("kaldi", data).items()
        assert (name, rejected, others) == ("train", [], [])
        assert [(row.utt_id, row.duration, row.text) for row in rows] == [
            ("a", 2.0, "one  two"),
            ("b", 1.0, ""),
        ]
        assert (rows[0].speaker, rows[0].age, rows[0].extra) == ("s1", "5-7", {"age_years": 7.5})
        assert rows[1].speaker is None

    def test_a_folder_of_directories(self, corpus: Any, tmp_path: Path) -> None:
        path = corpus.audio(tmp_path / "a.wav")
        for name in ("dev", "train"):
            corpus.lines(tmp_path / "data" / name / "wav.scp", f"a {path}")
        assert list(corpus.imported("kaldi", tmp_path / "data")) == ["dev", "train"]

    def test_segments(self, corpus: Any, tmp_path: Path) -> None:
        corpus.audio(tmp_path / "r.wav", 10.0)
        corpus.lines(tmp_path / "wav.scp", "r r.wav")
        corpus.lines(
            tmp_path / "segments",
            "first r 0 2.5",
            "rest r 8 -1",
            "over r 9 12",
            "outside r 11 12",
            "backwards r 3 2",
            "other x 0 1",
            "short r",
            "endless r 0 inf",
        )
        rows, rejected = corpus.imported("kaldi", tmp_path)[tmp_path.name]
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
            ("8", "endless", "segment is 0 to inf s, must start >= 0 and end later"),
        ]

    @pytest.mark.parametrize("value", ["sph2pipe -f wav a.sph |", "raw.ark:17", "-"])
    def test_what_is_no_path_is_refused(self, corpus: Any, tmp_path: Path, value: str) -> None:
        corpus.lines(tmp_path / "wav.scp", "a a.wav", f"b {value}")
        with pytest.raises(ValueError, match=r"wav\.scp:2: '.*', must be a plain path"):
            import_corpus("kaldi", tmp_path)

    def test_nothing_is_lost_silently(self, corpus: Any, tmp_path: Path) -> None:
        corpus.audio(tmp_path / "a.wav")
        (tmp_path / "b.wav").write_bytes(b"RIFF")
        corpus.lines(
            tmp_path / "wav.scp", "a a.wav", "b b.wav", "c c.wav", "a a.wav", "", "A a.wav"
        )
        corpus.lines(tmp_path / "text", "a one", "d four")
        (tmp_path / "utt2spk").write_bytes(b"a \xff\n")
        rows, rejected = corpus.imported("kaldi", tmp_path)[tmp_path.name]
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

    def test_a_line_wrong_in_itself_costs_only_its_utterance(
        self, corpus: Any, tmp_path: Path
    ) -> None:
        corpus.audio(tmp_path / "a.wav")
        lines = ("\ufeffa a.wav", "b", "c a.wav", "d a.wav")
        corpus.lines(tmp_path / "wav.scp", *lines)
        corpus.lines(tmp_path / "text", "\ufeffa one", "b two", "c")
        (rows, rejected) = corpus.imported("kaldi", tmp_path)[tmp_path.name]
        assert [(row.utt_id, row.text) for row in rows] == [("a", "one"), ("c", "")]
        assert [(row.utt_id, row.reason) for row in rejected] == [
            ("b", "recording has no path in wav.scp, must have one"),
            ("d", "utterance has no line in text, must have one where others have"),
        ]

    def test_ids_are_made_fit_and_kept(self, corpus: Any, tmp_path: Path) -> None:
        corpus.audio(tmp_path / "a.wav")
        corpus.lines(tmp_path / "wav.scp", "k\u00e4se/1 a.wav")
        ((row,), _) = corpus.imported("kaldi", tmp_path)[tmp_path.name]
        assert row.utt_id.startswith("k_se_1-")
        assert row.extra == {"kaldi_id": "k\u00e4se/1"}
