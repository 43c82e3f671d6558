"""The synthetic children's corpus `mini`: spoken by espeak-ng, made on the spot.

Four sets with no speaker in common: `adults` (plain voices, to pretrain a tiny base), and
`train`, `dev` and `test` (child-like: shorter vocal tract, higher pitch, slips of grammar and
of sounds by age, some of it in noise, some clips without speech). What is drawn depends on the
seed alone; the same espeak-ng gives the same bytes.
"""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from manifests.corpora import Sets
from manifests.corpora.mini_text import sentence, spoken
from manifests.rows import AGE_BUCKETS, AgeBucket, Rejected, Seconds, Utterance

Samples = npt.NDArray[np.float32]

SEED = 1
RATE = 16_000  # Hz
LONGEST = 3.8  # seconds; the tiny models have a window of 4 s
_CHUNK = 64  # clips spoken together; rows stream


class SetPlan(NamedTuple):
    """How much of a set there is; the speakers take turns."""

    speakers: int
    turns: int
    empty: float  # share of clips without speech


PLAN = {
    "adults": SetPlan(speakers=40, turns=28, empty=0.03),
    "train": SetPlan(speakers=48, turns=24, empty=0.05),
    "dev": SetPlan(speakers=8, turns=16, empty=0.05),
    "test": SetPlan(speakers=12, turns=15, empty=0.05),
}
NOISY = 0.25  # share of the children's clips
SNRS = (25.0, 18.0, 12.0)  # dB
SESSIONS = 2  # of each speaker


class Manner(NamedTuple):
    """How an age speaks."""

    tract: tuple[float, float]  # factor on all frequencies: a shorter vocal tract
    pitch: tuple[int, int]  # espeak-ng's 0 to 99
    rate: tuple[int, int]  # words a minute
    slip: float  # see `mini_text.sentence`
    late_sounds: float  # see `mini_text.spoken`
    repeats: float


MANNERS: dict[AgeBucket | None, Manner] = {
    None: Manner((0.94, 1.08), (30, 70), (130, 170), 0.15, 0.0, 0.0),  # adults
    "3-4": Manner((1.17, 1.23), (75, 95), (95, 120), 0.8, 0.3, 0.03),
    "5-7": Manner((1.14, 1.20), (70, 90), (105, 130), 0.6, 0.15, 0.02),
    "8-11": Manner((1.11, 1.17), (60, 85), (115, 145), 0.3, 0.0, 0.01),
    "12+": Manner((1.08, 1.14), (50, 80), (125, 155), 0.1, 0.0, 0.01),
}
ACCENTS = ("en-us", "en-us", "en-us", "en-gb")
ADULT_VARIANTS = ("m1", "m2", "m3", "m4", "m7", "f1", "f2", "f3", "f4", "klatt")
CHILD_VARIANTS = ("f1", "f2", "f3", "f4", "f5", "klatt4")


class Voice(NamedTuple):
    """A speaker: the parameters of one synthetic voice."""

    speaker: str
    age: AgeBucket | None
    espeak: str  # accent+variant
    pitch: int
    rate: int  # words a minute
    tract: float


class Clip(NamedTuple):
    """One recording to make; everything random about it follows from its fields."""

    utt_id: str
    voice: Voice
    session: str
    text: str
    spoken: str  # what the synthesiser reads; "" = no speech
    snr: float | None  # dB of the added noise; None = clean
    seed: int

    def file_name(self) -> str:
        """Return a name that changes with the clip, so that no stale file is ever taken."""
        return f"{self.utt_id}.{zlib.crc32(repr(self).encode()):08x}.wav"


def import_corpus(src: Path, limit: int | None = None) -> Sets:
    """Return the four sets, speaking into ``src`` what is not there yet, as rows are read.

    ``limit`` takes that many clips of each set. ValueError if espeak-ng is missing.
    """
    if shutil.which("espeak-ng") is None:
        raise ValueError("espeak-ng: not found, install it: apt-get install espeak-ng")
    folder = Path(src).resolve()
    return {name: speak(clips(name)[:limit], folder / name, source="mini") for name in PLAN}


def clips(name: str, seed: int = SEED) -> list[Clip]:
    """Return what is to be recorded for set ``name``; speakers take turns."""
    plan = PLAN[name]
    rng = random.Random(f"{seed} {name}")
    ages = (None,) if name == "adults" else AGE_BUCKETS
    voices = [
        _voice(rng, f"{name}-{number:02d}", ages[number % len(ages)])
        for number in range(plan.speakers)
    ]
    return [
        _clip(rng, voice, turn, 1 + turn * SESSIONS // plan.turns, plan.empty)
        for turn in range(plan.turns)
        for voice in voices
    ]


def _clip(rng: random.Random, voice: Voice, turn: int, session: int, empty: float) -> Clip:
    manner = MANNERS[voice.age]
    text = "" if rng.random() < empty else sentence(rng, manner.slip)
    noisy = voice.age is not None and rng.random() < NOISY
    return Clip(
        utt_id=f"{voice.speaker}-{turn:03d}",
        voice=voice,
        session=f"{voice.speaker}-s{session}",
        text=text,
        spoken=spoken(rng, text, late_sounds=manner.late_sounds, repeats=manner.repeats),
        snr=rng.choice(SNRS) if noisy else None,
        seed=rng.getrandbits(32),
    )


def _voice(rng: random.Random, speaker: str, age: AgeBucket | None) -> Voice:
    manner = MANNERS[age]
    variants = ADULT_VARIANTS if age is None else CHILD_VARIANTS
    return Voice(
        speaker=speaker,
        age=age,
        espeak=f"{rng.choice(ACCENTS)}+{rng.choice(variants)}",
        pitch=rng.randint(*manner.pitch),
        rate=rng.randint(*manner.rate),
        tract=round(rng.uniform(*manner.tract), 3),
    )


def speak(
    todo: list[Clip], folder: Path, *, source: str, longest: Seconds = LONGEST
) -> Iterator[Utterance | Rejected]:
    """Yield the rows of clips, recorded into ``folder`` unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = iter(todo)
    record = partial(_record, folder=folder, source=source, longest=longest)
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(stream, _CHUNK)):
            yield from pool.map(record, chunk)


def _record(clip: Clip, folder: Path, source: str, longest: Seconds) -> Utterance | Rejected:
    """Return the row of a clip, recorded now unless its file exists."""
    import soundfile

    path = folder / clip.file_name()
    if not path.exists():
        try:
            samples = render(clip, longest)
        except ValueError as error:
            return Rejected(place=str(path), reason=str(error), utt_id=clip.utt_id)
        wav = io.BytesIO()
        soundfile.write(wav, samples, RATE, format="WAV", subtype="PCM_16")
        part = path.with_name(path.name + ".part")
        part.write_bytes(wav.getvalue())
        part.replace(path)
    return Utterance(
        utt_id=clip.utt_id,
        audio_filepath=str(path),
        duration=soundfile.info(path).frames / RATE,
        text=clip.text,
        speaker=clip.voice.speaker,
        session=clip.session,
        age=clip.voice.age,
        source=source,
        noisy=clip.snr is not None,
    )


def render(clip: Clip, longest: Seconds = LONGEST) -> Samples:
    """Return the samples of a clip at 16 kHz, peak below 1; ValueError if espeak-ng fails.

    What takes longer than ``longest`` s is said faster.
    """
    rng = np.random.default_rng(clip.seed)
    if not clip.spoken:
        return _no_speech(rng)
    voice = clip.voice
    rate = voice.rate
    speech = _espeak(clip.spoken, voice, rate)
    while speech.size > longest * RATE:
        rate = round(rate * 1.15)
        speech = _espeak(clip.spoken, voice, rate)
    speech *= rng.uniform(0.2, 0.7) / np.abs(speech).max()
    edges = (int(rng.uniform(0.02, 0.12) * RATE), int(rng.uniform(0.02, 0.08) * RATE))
    speech = np.pad(speech, edges)
    level = float(np.sqrt(np.mean(speech**2)))
    snr = 45.0 if clip.snr is None else clip.snr
    noise = _pink(rng, speech.size) * level * 10 ** (-snr / 20)
    return _limited(speech + noise)


def _espeak(text: str, voice: Voice, rate: int) -> Samples:
    """Return ``text`` spoken, at 16 kHz, with all frequencies scaled by the voice's tract."""
    import soxr

    # Played faster, the whole spectrum moves up; spoken slower before, the words keep their time.
    done = subprocess.run(
        [
            *("espeak-ng", "--stdout", "-v", voice.espeak, "-p", str(voice.pitch)),
            *("-s", str(max(80, round(rate / voice.tract))), "-z", "--", text),
        ],
        capture_output=True,
    )
    header = 44  # a WAV header of unknown length: the size fields of a pipe are no use
    samples = np.frombuffer(done.stdout[header:], dtype="<i2").astype(np.float32) / 32768
    if done.returncode or samples.size < 0.1 * RATE:
        message = done.stderr.decode(errors="replace").strip()
        raise ValueError(f"espeak-ng {voice.espeak} gave {samples.size} samples: {message}")
    in_rate = int.from_bytes(done.stdout[24:28], "little") * voice.tract
    resampled: Samples = np.asarray(soxr.resample(samples, in_rate, RATE), dtype=np.float32)
    loud = np.flatnonzero(np.abs(resampled) > 1e-3)
    return resampled[loud[0] : loud[-1] + 1].copy()


def _no_speech(rng: np.random.Generator) -> Samples:
    """Return 0.6 to 2.5 s without speech: digital silence, room noise, hum or knocks."""
    size = int(rng.uniform(0.6, 2.5) * RATE)
    kind = rng.integers(4)
    if kind == 0:
        return np.zeros(size, dtype=np.float32)
    samples = _pink(rng, size) * 10 ** rng.uniform(-2.5, -1.0)
    if kind == 2:
        times = np.arange(size) / RATE
        samples += 0.1 * np.sin(2 * np.pi * rng.uniform(80, 400) * times)
    elif kind == 3:
        for start in rng.integers(0, size, 3):
            knock = samples[start : start + RATE // 20]
            knock += rng.normal(0, 0.2, knock.size) * np.exp(-np.arange(knock.size) / 150)
    return _limited(samples)


def _pink(rng: np.random.Generator, size: int) -> Samples:
    """Return noise of unit power whose power falls by 3 dB an octave, as rooms have it."""
    spectrum = np.fft.rfft(rng.normal(size=size))
    spectrum[1:] /= np.sqrt(np.arange(1, spectrum.size))
    noise = np.fft.irfft(spectrum, size)
    scaled: Samples = (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)
    return scaled


def _limited(samples: npt.NDArray[np.floating]) -> Samples:
    limited: Samples = np.clip(samples, -0.99, 0.99).astype(np.float32)
    return limited
