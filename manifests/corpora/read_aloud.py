"""A manifest's sentences read aloud by espeak-ng, in many voices: what to pretrain on.

Hardly any corpus of children is large enough to teach a recogniser with random weights to
listen; synthetic speech, clean and regular, is. Half of the clips say a sentence of the
manifest, half say words of it in random order: a decoder that has learned the sentences by
heart can guess the first kind, but must listen to the second. Give the training side alone:
a sentence of dev or test heard here would be a sentence known there.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from manifests.corpora import Sets
from manifests.corpora.mini import Clip, Voice, speak
from manifests.jsonl import read_rows
from manifests.rows import Utterance
from manifests.text import normalize_text

SEED = 1
CLIPS = 5000  # about 3 hours
VOICES = 200
LONGEST = 7.5  # seconds; what takes longer is said faster
SHUFFLED = 0.5  # share of the clips that say words in random order
WORDS = (1, 6)  # in such a clip
NOISY = 0.5
SNRS = (30.0, 20.0, 15.0)  # dB
# Adults and children, low and high voices, slow and fast.
TRACTS = (0.92, 1.22)
PITCHES = (20, 95)
RATES = (100, 165)  # words a minute
ACCENTS = ("en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029")
VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5", "klatt4")


def import_corpus(src: Path, limit: int | None = None) -> Sets:
    """Return set ``read_aloud``: sentences of manifest ``src``, spoken as rows are read.

    The recordings lie in a folder beside the manifest. ``limit`` takes that many clips.
    ValueError if espeak-ng is missing or the manifest has no text.
    """
    if shutil.which("espeak-ng") is None:
        raise ValueError("espeak-ng: not found, install it: apt-get install espeak-ng")
    src = Path(src).resolve()
    if not src.is_file():
        raise ValueError(f"{src}: no such file, must be a manifest")
    # Upper case would be spelled out.
    texts = (normalize_text(row.text or "") for row in read_rows(src, Utterance))
    todo = clips([text for text in texts if text])[:limit]
    folder = src.parent / "read_aloud"
    return {"read_aloud": speak(todo, folder, source="read_aloud", longest=LONGEST)}


def clips(sentences: list[str], count: int = CLIPS, seed: int = SEED) -> list[Clip]:
    """Return what is to be recorded; ValueError when there are no ``sentences``."""
    if not sentences:
        raise ValueError("no text to read aloud, must be at least one sentence")
    rng = random.Random(f"{seed} read_aloud")
    # Every word as likely as any other: the rare ones are those still to be learned.
    vocabulary = sorted({word for text in sentences for word in text.split()})
    voices = [_voice(rng, f"read_aloud-{number:03d}") for number in range(VOICES)]
    order: list[str] = []
    todo = []
    for number in range(count):
        if rng.random() < SHUFFLED:
            text = " ".join(rng.choices(vocabulary, k=rng.randint(*WORDS)))
        else:
            order = order or rng.sample(sentences, len(sentences))
            text = order.pop()
        voice = rng.choice(voices)
        todo.append(
            Clip(
                utt_id=f"read_aloud-{number:05d}",
                voice=voice,
                session=voice.speaker,
                text=text,
                spoken=text,
                snr=rng.choice(SNRS) if rng.random() < NOISY else None,
                seed=rng.getrandbits(32),
            )
        )
    return todo


def _voice(rng: random.Random, speaker: str) -> Voice:
    return Voice(
        speaker=speaker,
        age=None,
        espeak=f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}",
        pitch=rng.randint(*PITCHES),
        rate=rng.randint(*RATES),
        tract=round(rng.uniform(*TRACTS), 3),
    )
