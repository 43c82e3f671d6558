"""What several unit tests begin with: small corpora on disk, and small n-grams."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from manifests import Rejected, Utterance
from manifests.corpora import import_corpus
from manifests.rows import utterance_problems


class Corpus:
    """Writes the files of a corpus; each returns its path."""

    def audio(
        self, path: Path, seconds: float = 1.0, rate: int = 16_000, level: float = 0.5
    ) -> Path:
        """A rising tone; WAV in floating point, which may be louder than 1."""
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(round(seconds * rate)) / rate
        samples = level * np.sin(2 * np.pi * (300 + 200 * time) * time)
        kind = {"subtype": "FLOAT"} if path.suffix == ".wav" else {}
        soundfile.write(path, samples, rate, **kind)
        return path

    def lines(self, path: Path, *lines: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def rows(self, path: Path, *rows: dict[str, Any]) -> Path:
        return self.lines(path, *(json.dumps(row) for row in rows))

    def kaldi(self, folder: Path, clips: dict[str, float | bytes], *, segments: str = "") -> Path:
        """A Kaldi data directory; a clip is its length in seconds, or its file's bytes."""
        for name, content in clips.items():
            path = folder / "wav" / f"{name}.wav"
            if isinstance(content, bytes):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            else:
                self.audio(path, content)
        keys = [line.split()[0] for line in segments.splitlines()] or list(clips)
        self.lines(folder / "wav.scp", *(f"{name} wav/{name}.wav" for name in clips))
        self.lines(folder / "text", *(f"{key} we goed home" for key in keys))
        self.lines(folder / "utt2spk", *(f"{key} {key[0]}" for key in keys))
        if segments:
            (folder / "segments").write_text(segments)
        return folder

    def manifest(self, folder: Path, *rows: dict[str, Any] | str, name: str = "m.jsonl") -> Path:
        """Rows, where they don't say otherwise sound ones of `folder`, with ids by line."""
        sound = {"audio_filepath": "a.wav", "duration": 3.0}
        texts = []
        for number, row in enumerate(rows, 1):
            if isinstance(row, dict):
                row = {"utt_id": f"u{number}"} | sound | row
                row = json.dumps({k: v for k, v in row.items() if v != "absent"})
            texts.append(row)
        return self.lines(folder / name, *texts)

    def imported(self, name: str, src: Path) -> dict[str, tuple[list[Utterance], list[Rejected]]]:
        """Return each set's utterances and what was rejected; every utterance is sound."""
        found = {}
        for set_name, rows in import_corpus(name, src).items():
            everything = list(rows)
            utterances = [row for row in everything if isinstance(row, Utterance)]
            assert [problem for row in utterances for problem in utterance_problems(row)] == []
            assert all(Path(row.audio_filepath).is_absolute() for row in utterances)
            rejected = [row for row in everything if isinstance(row, Rejected)]
            found[set_name] = utterances, rejected
        return found


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return Corpus()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a.wav, a.flac, a.mp3 and a.opus of three seconds, and damaged.flac."""
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000)
    for name in ("a.wav", "a.flac", "a.mp3"):
        soundfile.write(tmp_path / name, noise, 16_000)
    soundfile.write(tmp_path / "a.opus", noise, 16_000, format="OGG", subtype="OPUS")
    (tmp_path / "damaged.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:9_000])
    return tmp_path


@pytest.fixture(scope="session")
def make_ngram(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], Path]:
    """Make a trigram of a few sentences and return its folder."""
    from lm.train import train

    def make(sentences: Sequence[str]) -> Path:
        folder = tmp_path_factory.mktemp("ngram")
        (folder / "text").write_text("\n".join(sentences), encoding="utf-8")
        train([folder / "text"], folder / "lm", order=3)
        return folder / "lm"

    return make
