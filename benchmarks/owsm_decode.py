"""OWSM's decoding against ESPnet's `Speech2Text` in a loop: same model, clips, window and beams.

    python -m benchmarks.owsm_decode --clips 6 --window 10 --beams 5

builds an OWSM of the base model's width (random weights: the work is that of a trained one, and
every hypothesis is forced to the same length), decodes clips of 1 to 10 s with both, and prints
seconds of processor time and the ratio, such as
``ours   3.1 s   1.94 utt/s   2.8 x Speech2Text``. The texts must be the same.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml

from manifests import Utterance
from recipes.tiny_owsm import build
from systems.owsm.checkpoint import is_special, load_owsm
from systems.owsm.config import DecodeConfig, OwsmConfig
from systems.owsm.decoder import load_decoder
from systems.stream import decode_stream

RATE = 16_000


def build_model(folder: Path, window: float, blocks: int, seed: int) -> Path:
    """Write an OWSM that says neither marks nor the end."""
    texts = [f"{a} {b}" for a in ("the cat", "my dog") for b in ("goed home", "has big tooths")]
    build(
        texts,
        folder,
        window=window,
        width=384,
        blocks=blocks,
        decoder_blocks=blocks,
        units=4,
        pieces=300,
        mels=128,
        seed=seed,
    )
    owsm = load_owsm(folder)
    weights = torch.load(owsm.layout.weights, weights_only=True)
    marks = [index for index, token in enumerate(owsm.tokens) if is_special(token)]
    weights["decoder.output_layer.bias"][marks] = -1e4
    torch.save(weights, owsm.layout.weights)
    return folder


def make_clips(folder: Path, count: int, window: float, seed: int) -> list[Utterance]:
    """Write noise bursts of 1 to 10 s."""
    rng = np.random.default_rng(seed)
    rows = []
    for index, seconds in enumerate(rng.uniform(1.0, window, count)):
        path = folder / f"clip{index:03d}.wav"
        size = int(seconds * RATE)
        soundfile.write(path, 0.1 * rng.standard_normal(size), RATE, subtype="FLOAT")
        rows.append(Utterance(utt_id=path.stem, audio_filepath=str(path), duration=size / RATE))
    return rows


def theirs(
    folder: Path, clips: list[Utterance], beams: int, tokens: int
) -> tuple[float, list[str]]:
    """Return the seconds and the texts of `Speech2Text`."""
    owsm = load_owsm(folder)
    from espnet2.bin.s2t_inference import Speech2Text

    config = folder.parent / "absolute.yaml"
    config.write_text(yaml.safe_dump(owsm.layout.config), encoding="utf-8")
    recogniser = Speech2Text(
        s2t_train_config=config,
        s2t_model_file=owsm.layout.weights,
        beam_size=beams,
        nbest=beams,
        maxlenratio=-tokens,
    )
    recogniser(np.zeros(RATE, np.float32))  # warm up
    started = time.process_time()
    texts = [
        recogniser(soundfile.read(clip.audio_filepath, dtype="float32")[0])[0][3] for clip in clips
    ]
    return time.process_time() - started, texts


def ours(
    folder: Path, clips: list[Utterance], beams: int, tokens: int, times: bool
) -> tuple[float, list[str]]:
    """Return the seconds and the texts."""
    settings = DecodeConfig(
        beams=beams,
        nbest=beams,
        ctc_weight=0.0,
        min_tokens=tokens,
        tokens_per_second=0.0,
        max_repeats=0,
        blank_threshold=1.0,
        word_times=times,
    )
    decoder = load_decoder(OwsmConfig(device="cpu", decode=settings), str(folder))
    list(decode_stream(clips[:1], decoder.decode_batch, decoder.stream_config()))  # warm up
    started = time.process_time()
    rows = {
        row.utt_id: row
        for row in decode_stream(clips, decoder.decode_batch, decoder.stream_config())
    }
    wall = time.process_time() - started
    return wall, [rows[clip.utt_id].best.text for clip in clips]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--window", type=float, default=10.0)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=20, help="length of every hypothesis")
    parser.add_argument("--blocks", type=int, default=6, help="of the encoder and of the decoder")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = build_model(Path(name) / "model", args.window, args.blocks, args.seed)
        clips = make_clips(Path(name), args.clips, args.window, args.seed)
        base, expected = theirs(folder, clips, args.beams, args.tokens)
        print(f"Speech2Text {base:7.2f} s {len(clips) / base:7.2f} utt/s")
        for label, times in (("ours", False), ("with words", True)):
            wall, texts = ours(folder, clips, args.beams, args.tokens, times)
            equal = sum(
                left.split() == right.split() for left, right in zip(expected, texts, strict=True)
            )
            print(
                f"{label:11} {wall:7.2f} s {len(clips) / wall:7.2f} utt/s "
                f"{base / wall:5.1f} x Speech2Text, {equal} of {len(clips)} texts equal"
            )


if __name__ == "__main__":
    main()
