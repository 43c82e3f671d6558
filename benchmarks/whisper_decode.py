"""Whisper's decoding against the Hugging Face ASR pipeline: same model, clips, beams and batch.

    python -m benchmarks.whisper_decode --clips 16 --batch 8 --beams 5

builds a Whisper of whisper-tiny's size (vocabulary 51865, 30 s window, random weights: the work
is that of a trained one, and every hypothesis is forced to the same length), decodes clips of 1
to 10 s with both, and prints seconds, the ratio and where the time went, such as
``short windows   3.1 s   10.5 utt/s   7.9 x the pipeline``. At the full window the two must write
the same texts.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from manifests import NBest, Utterance
from systems.stream import decode_stream
from systems.whisper.config import DecodeConfig, WhisperConfig
from systems.whisper.decoder import WhisperDecoder

RATE = 16_000
VOCABULARY = 51_865


def build_model(folder: Path, seed: int) -> Path:
    """Write a Whisper of whisper-tiny's shape that never says the end of text."""
    import torch
    from transformers import GenerationConfig, WhisperForConditionalGeneration

    from recipes.tiny_whisper import build

    texts = [f"{a} {b}" for a in ("the cat", "my dog") for b in ("goed home", "has big tooths")]
    build(texts * 2, folder, window=30, d_model=384, layers=4, heads=6, seed=seed)
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    generation = GenerationConfig.from_pretrained(folder)
    known = model.config.vocab_size
    torch.manual_seed(seed)
    model.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    first_special = generation.eos_token_id
    generation.suppress_tokens = [first_special, *range(first_special + 1, VOCABULARY)]
    generation.begin_suppress_tokens = None
    assert known <= VOCABULARY
    model.generation_config = generation
    model.save_pretrained(folder)
    return folder


def make_clips(folder: Path, count: int, seed: int) -> list[Utterance]:
    """Write noise bursts of 1 to 10 s."""
    rng = np.random.default_rng(seed)
    rows = []
    for index, seconds in enumerate(rng.uniform(1.0, 10.0, count)):
        size = int(seconds * RATE)
        beat = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(1, 5) * np.arange(size) / RATE)
        path = folder / f"clip{index:03d}.flac"
        soundfile.write(path, 0.1 * beat * rng.standard_normal(size), RATE)
        rows.append(Utterance(utt_id=path.stem, audio_filepath=str(path), duration=size / RATE))
    return rows


def ours(
    folder: Path, clips: list[Utterance], args: argparse.Namespace, window: Any, times: bool
) -> tuple[float, list[NBest], dict[str, float]]:
    """Return the seconds, the rows in the clips' order and the seconds of each phase."""
    settings = DecodeConfig(
        beams=args.beams,
        nbest=args.beams,
        max_batch=args.batch,
        batch_seconds=1e9,
        min_tokens=args.tokens,
        tokens_per_second=0.0,
        no_speech_threshold=1.0,
        max_repeats=0,
        word_times=times,
        precision="fp32",
    )
    config = WhisperConfig(window=window, device=args.device, decode=settings)
    decoder = WhisperDecoder(config, str(folder))
    list(decode_stream(clips[:2], decoder.decode_batch, decoder.stream_config()))  # warm up
    decoder.seconds = dict.fromkeys(decoder.seconds, 0.0)
    started = time.perf_counter()
    rows = {
        row.utt_id: row
        for row in decode_stream(clips, decoder.decode_batch, decoder.stream_config())
    }
    wall = time.perf_counter() - started
    return wall, [rows[clip.utt_id] for clip in clips], decoder.seconds


def theirs(
    folder: Path, clips: list[Utterance], args: argparse.Namespace
) -> tuple[float, list[str]]:
    """Return the seconds and the texts of the Hugging Face pipeline."""
    from transformers import pipeline

    recogniser = pipeline(
        "automatic-speech-recognition", model=str(folder), device=args.device, dtype="float32"
    )
    options = {
        "num_beams": args.beams,
        "max_new_tokens": args.tokens,
        "language": "en",
        "task": "transcribe",
    }

    def run(some: list[Utterance]) -> list[str]:
        audio = [
            {"raw": soundfile.read(clip.audio_filepath, dtype="float32")[0], "sampling_rate": RATE}
            for clip in some
        ]
        return [
            one["text"].strip()
            for one in recogniser(audio, batch_size=args.batch, generate_kwargs=options)
        ]

    run(clips[:2])  # warm up
    started = time.perf_counter()
    texts = run(clips)
    return time.perf_counter() - started, texts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=24, help="length of every hypothesis")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = build_model(Path(name) / "model", args.seed)
        clips = make_clips(Path(name), args.clips, args.seed)
        audio = sum(clip.duration for clip in clips)
        base, texts = theirs(folder, clips, args)
        print(f"pipeline            {base:7.2f} s {len(clips) / base:7.2f} utt/s")
        for label, window, times in (
            ("full window", 30.0, False),
            ("full, with words", 30.0, True),
            ("short windows", "auto", False),
            ("short, with words", "auto", True),
        ):
            wall, rows, seconds = ours(folder, clips, args, window, times)
            assert not any(row.error for row in rows), rows
            share = ", ".join(
                f"{name} {100 * spent / wall:.0f} %" for name, spent in seconds.items()
            )
            print(
                f"{label:19s} {wall:7.2f} s {len(clips) / wall:7.2f} utt/s"
                f" {base / wall:6.2f} x the pipeline, RTFx {audio / wall:.1f} ({share})"
            )
            if window == 30.0:
                same = sum(row.best.text == text for row, text in zip(rows, texts, strict=True))
                assert same == len(texts), f"{same} of {len(texts)} texts are the pipeline's"
        print(f"all {len(texts)} texts at the full window are the pipeline's")


if __name__ == "__main__":
    main()
