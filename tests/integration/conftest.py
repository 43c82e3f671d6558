"""A spoken language of tones and tiny Whispers that know it, or do not, for all Whisper tests."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pytest
import soundfile

from manifests.jsonl import read_manifest, write_rows
from manifests.rows import Utterance
from systems.config import load_config
from systems.guard import Window, read_windows
from systems.stream import Ranked
from systems.whisper.config import WhisperConfig
from systems.whisper.decoder import WhisperDecoder

# Before torch is imported, and for the processes that tests start: models this small gain nothing
# from a second thread, and threads that wait for each other burn the cores of a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"

# Each word is a pair of tones (Hz), so that a small model learns to hear it within seconds.
WORDS = {
    "a": (300, 300),
    "I": (500, 500),
    "goed": (800, 800),
    "home": (1200, 1200),
    "tooths": (1800, 1800),
    "two": (2600, 2600),
    "mouses": (300, 1200),
    "saw": (1800, 500),
}
WINDOW = 2  # s
WORD_SECONDS = 0.3
RATE = 16000

Load = Callable[..., WhisperDecoder]


class Corpus(NamedTuple):
    """Two manifests."""

    train: Path
    dev: Path


def spoken(text: str, rng: np.random.Generator) -> np.ndarray:
    """Return a text in tones, 0.05 s of quiet around it, shape (n_samples,)."""
    time = np.arange(int(WORD_SECONDS / 2 * RATE)) / RATE
    fade = np.minimum(1, 10 * np.minimum(time, time[::-1]) / WORD_SECONDS)
    tones = [np.sin(2 * np.pi * hz * time) * fade for word in text.split() for hz in WORDS[word]]
    quiet = np.zeros(RATE // 20)
    audio = np.concatenate([quiet, *tones, quiet]) * rng.uniform(0.2, 0.5)
    return (audio + rng.normal(0, 0.003, len(audio))).astype(np.float32)


def write_corpus(folder: Path, name: str, texts: list[str], seed: int = 1) -> Path:
    """Write one WAV per text and their manifest; ages and speakers take turns."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, text in enumerate(texts):
        audio = spoken(text, rng)
        soundfile.write(folder / f"{name}-{i}.wav", audio, RATE)
        rows.append(
            Utterance(
                utt_id=f"{name}-{i}",
                audio_filepath=f"{name}-{i}.wav",
                duration=len(audio) / RATE,
                text=text,
                speaker=f"s{i % 4}",
                age="8-11" if i % 4 else "5-7",
            )
        )
    write_rows(folder / f"{name}.jsonl", rows)
    return folder / f"{name}.jsonl"


def sentences(count: int, seed: int) -> list[str]:
    """Return sentences of 1 to 5 words; every twelfth is silence."""
    rng = random.Random(seed)
    words = list(WORDS)
    return [
        "" if i % 12 == 11 else " ".join(rng.choices(words, k=rng.randint(1, 5)))
        for i in range(count)
    ]


@pytest.fixture(scope="session")
def tone_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """240 utterances to learn from and 21 to choose by."""
    folder = tmp_path_factory.mktemp("tones")
    return Corpus(
        write_corpus(folder, "train", sentences(240, 1)),
        write_corpus(folder, "dev", sentences(21, 2), seed=2),
    )


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Whisper of the published layout with a window of 2 s."""
    from recipes.tiny_whisper import build

    folder = tmp_path_factory.mktemp("tiny") / "model"
    return build([" ".join(WORDS)] * 2, folder, window=WINDOW, d_model=64, layers=2, heads=4)


@pytest.fixture(scope="session")
def trained_whisper(
    tmp_path_factory: pytest.TempPathFactory, tiny_whisper: Path, tone_corpus: Corpus
) -> Path:
    """The tiny Whisper after learning the tones: a ``final`` folder, fully fine-tuned."""
    from systems.config import load_config
    from systems.whisper.config import WhisperConfig
    from systems.whisper.train import train

    config = load_config(
        WhisperConfig,
        None,
        [
            f"pretrained={tiny_whisper}",
            f"window={WINDOW}",
            "device=cpu",
            "train.adapt=full",
            "train.batch_size=16",
            "train.accumulation=1",
            "train.learning_rate=2e-3",
            "train.spec_augment=false",
            "train.max_steps=280",
            "train.eval_steps=140",
            "train.num_workers=0",
            "train.report_to=[]",
        ],
    )
    return train(config, tone_corpus.train, tone_corpus.dev, tmp_path_factory.mktemp("tones-exp"))


@pytest.fixture(scope="session")
def tiny_owsm(tmp_path_factory: pytest.TempPathFactory, tone_corpus: Corpus) -> Path:
    """An untrained OWSM of the published layout with a window of 2 s."""
    return _tiny_owsm(tmp_path_factory.mktemp("tiny-owsm") / "model", tone_corpus, "aed")


@pytest.fixture(scope="session")
def tiny_owsm_ctc(tmp_path_factory: pytest.TempPathFactory, tone_corpus: Corpus) -> Path:
    """An untrained OWSM-CTC of the published layout with a window of 2 s."""
    return _tiny_owsm(tmp_path_factory.mktemp("tiny-owsm-ctc") / "model", tone_corpus, "ctc")


def _tiny_owsm(folder: Path, corpus: Corpus, family: Literal["aed", "ctc"]) -> Path:
    from recipes.texts import read_texts
    from recipes.tiny_owsm import build, read_audio

    return build(
        read_texts([corpus.train]),
        folder,
        window=WINDOW,
        audio=read_audio([corpus.train]),
        family=family,
        width=48,
        blocks=2,
        pieces=30,
    )


@pytest.fixture(scope="session")
def trained_owsm(
    tmp_path_factory: pytest.TempPathFactory, tiny_owsm: Path, tone_corpus: Corpus
) -> Path:
    """The tiny OWSM after learning the tones: a ``final`` folder, fully fine-tuned."""
    return _trained_owsm(tiny_owsm, tone_corpus, tmp_path_factory.mktemp("owsm-exp"), 300)


@pytest.fixture(scope="session")
def trained_owsm_ctc(
    tmp_path_factory: pytest.TempPathFactory, tiny_owsm_ctc: Path, tone_corpus: Corpus
) -> Path:
    """The tiny OWSM-CTC after learning the tones: a ``final`` folder, fully fine-tuned."""
    return _trained_owsm(tiny_owsm_ctc, tone_corpus, tmp_path_factory.mktemp("owsm-ctc-exp"), 160)


def _trained_owsm(untrained: Path, corpus: Corpus, exp: Path, steps: int) -> Path:
    from systems.config import load_config
    from systems.owsm.config import OwsmConfig
    from systems.owsm.train import train

    config = load_config(
        OwsmConfig,
        None,
        [
            f"pretrained={untrained}",
            "device=cpu",
            "train.adapt=full",
            "train.batch_size=16",
            "train.accumulation=1",
            "train.learning_rate=4e-3",
            "train.spec_augment=false",
            "train.shift_seconds=0.2",
            f"train.max_steps={steps}",
            f"train.eval_steps={steps // 2}",
            "train.num_workers=0",
            "train.report_to=[]",
        ],
    )
    return train(config, corpus.train, corpus.dev, exp)


@pytest.fixture(scope="session")
def tiny_nemo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Conformer-CTC of the published layout: a folder with one `.nemo` file."""
    from recipes.tiny_nemo import build

    folder = tmp_path_factory.mktemp("tiny") / "nemo"
    return build([" ".join(WORDS)] * 2, folder, d_model=48, layers=2, vocabulary=32)


@pytest.fixture(scope="session")
def trained_nemo(
    tmp_path_factory: pytest.TempPathFactory, tiny_nemo: Path, tone_corpus: Corpus
) -> Path:
    """The tiny Conformer after learning the tones: a ``final`` folder, fully fine-tuned."""
    from systems.config import load_config
    from systems.nemo.config import NemoConfig
    from systems.nemo.train import train

    config = load_config(
        NemoConfig,
        None,
        [
            f"pretrained={tiny_nemo}",
            "device=cpu",
            "text=raw",
            "train.adapt=full",
            "train.batch_seconds=24",
            "train.max_batch=16",
            "train.learning_rate=3e-3",
            "train.spec_augment=false",
            "train.max_steps=240",
            "train.eval_steps=120",
            "train.patience=0",
            "train.num_workers=0",
            "train.report_to=[]",
        ],
    )
    exp = tmp_path_factory.mktemp("nemo-exp")
    return train(config, _with_pauses(tone_corpus.train, exp.parent), tone_corpus.dev, exp)


def _with_pauses(manifest: Path, folder: Path) -> Path:
    """Return the manifest's rows and as many pairs of them with digital silence in between.

    A CTC model that never heard a pause hears words in it.
    """
    rows = list(read_manifest(manifest))
    quiet = np.zeros(RATE // 3, np.float32)
    pairs = []
    for i, (one, two) in enumerate(zip(rows, reversed(rows), strict=True)):
        sounds = [soundfile.read(row.audio_filepath, dtype="float32")[0] for row in (one, two)]
        audio = np.concatenate([sounds[0], quiet, sounds[1], quiet])
        path = folder / f"pair-{i}.wav"
        soundfile.write(path, audio, RATE)
        text = " ".join(f"{one.text} {two.text}".split())
        pairs.append(
            Utterance(
                utt_id=path.stem, audio_filepath=str(path), duration=len(audio) / RATE, text=text
            )
        )
    write_rows(folder / "pauses.jsonl", [*rows, *pairs[::2]])
    return folder / "pauses.jsonl"


@pytest.fixture(scope="session")
def windows(tone_corpus: Corpus) -> list[Window]:
    """Eight sentences of the dev set as decoders hear them."""
    rows = [row for row in read_manifest(tone_corpus.dev) if row.text]
    return [window for row in rows[:8] for window in read_windows(row, WINDOW)]


@pytest.fixture(scope="session")
def whisper_decoder() -> Load:
    """Loads a checkpoint: (folder, overrides of the config..., lm=folder)."""

    def load(checkpoint: Path, *overrides: str, lm: Path | None = None) -> WhisperDecoder:
        config = load_config(WhisperConfig, None, [f"window={WINDOW}", "device=cpu", *overrides])
        return WhisperDecoder(config, str(checkpoint), lm)

    return load


@pytest.fixture(scope="module")
def loaded(trained_whisper: Path, whisper_decoder: Load) -> WhisperDecoder:
    """The trained Whisper, anew for each file: some tests switch its attention."""
    return whisper_decoder(trained_whisper)


def texts(heard: Sequence[Sequence[Ranked]]) -> list[list[str]]:
    """Return the texts of decoded windows, those of each from best to worst."""
    return [[ranked.hypothesis.text for ranked in one] for one in heard]
