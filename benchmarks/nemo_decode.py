"""NeMo's decoding against NeMo's `transcribe` and against a plain pyctcdecode call.

    python -m benchmarks.nemo_decode --manifest exp/mini/data/test.jsonl \\
        --checkpoint exp/mini/nemo/tuned/final --lm exp/mini/lm

decodes the manifest with the same model in one run: greedy with `transcribe` and with ours, then
beam search with the n-gram from the same log-probabilities by plain pyctcdecode (its n-best
search, and its search for one text only) and by ours (n-best with word times and confidences), in
one process and in two each. Prints the least seconds of some rounds, the ratios and how many texts
agree, such as ``greedy: transcribe 6.10 s, ours 2.00 s, 3.05 x, same text 180 of 180``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from operator import eq
from pathlib import Path
from typing import Any, TypeVar

import soundfile
from msgspec.structs import replace
from pyctcdecode.decoder import build_ctcdecoder

from benchmarks.mended_pyctcdecode import decode_beams
from lm.ngram import BINARY, UNIGRAMS
from manifests import NBest, Utterance, read_manifest
from systems.ctc_config import CtcConfig
from systems.nemo.config import DecodeConfig, NemoConfig
from systems.nemo.decoder import NemoDecoder, ctc_decoder
from systems.stream import decode_stream

T = TypeVar("T")

ALPHA, BETA = 1 / math.log(10), 1.0
"""With this alpha pyctcdecode's -10 for an unknown word and for its beginning are one charge."""

OOV = -10 * math.log(10)


def settings(**changes: Any) -> NemoConfig:
    decode = DecodeConfig(alpha=ALPHA, beta=BETA, oov_penalty=OOV, **changes)
    return NemoConfig(device="cpu", decode=decode)


def greedy(utterances: Sequence[Utterance], checkpoint: str, rounds: int) -> None:
    decoder = NemoDecoder(settings(method="greedy"), checkpoint)
    files = [utterance.audio_filepath for utterance in utterances]

    def transcribe() -> Any:
        with contextlib.redirect_stderr(io.StringIO()):
            return decoder.model.transcribe(files, batch_size=32, verbose=False)

    def stream() -> list[NBest]:
        decoder.model.eval()  # `transcribe` has left it otherwise
        return list(decode_stream(utterances, decoder.decode_batch, decoder.stream_config()))

    base, theirs = best(rounds, transcribe)
    wall, rows = best(rounds, stream)
    ours = {row.utt_id: row.best.text for row in rows}
    same = sum(
        ours[row.utt_id] == " ".join(one.text.split())
        for row, one in zip(utterances, theirs, strict=True)
    )
    report("greedy: transcribe", base, wall, same, len(files))


def beam(
    utterances: Sequence[Utterance], checkpoint: str, lm: Path, beams: int, rounds: int
) -> None:
    import torch

    config = settings(beams=beams)
    decoder = NemoDecoder(config, checkpoint)
    samples = [soundfile.read(row.audio_filepath, dtype="float32")[0] for row in utterances]
    with torch.inference_mode():
        heard = [decoder.encode([one])[0][0] for one in samples]
    frames = [len(one) for one in heard]
    batch = torch.nn.utils.rnn.pad_sequence(heard, batch_first=True)
    matrices = [one.numpy() for one in heard]
    tokens = [*decoder.model.decoder.vocabulary, ""]
    options = {
        "beam_width": beams,
        "token_min_logp": config.decode.token_min_logp,
        "beam_prune_logp": config.decode.beam_prune_logp,
    }
    unigrams = (lm / UNIGRAMS).read_text(encoding="utf-8").split()
    plain: Any = build_ctcdecoder(tokens, str(lm / BINARY), unigrams, alpha=ALPHA, beta=BETA)
    peers = {"decode_beams": plain.decode_beams_batch, "decode": plain.decode_batch}
    lasts = [row.duration for row in utterances]
    for processes in (1, 2):
        wanted = replace(config, decode=replace(config.decode, processes=processes))
        search = ctc_decoder(decoder.model, decoder.frame_seconds, wanted, lm)
        with search, get_context("fork").Pool(processes) as pool:
            workers = pool if processes > 1 else None
            search.decode(batch[:8], frames[:8], lasts[:8])  # the processes have started
            wall, ours = best(rounds, partial(search.decode, batch, frames, lasts))
            texts = [one[0].hypothesis.text for one in ours]
            for name, call in peers.items():
                base, found = best(rounds, partial(call, workers, matrices, **options))
                theirs = [one if isinstance(one, str) else one[0][0] for one in found]
                same = sum(map(eq, texts, theirs))
                title = f"n-gram, {beams} beams, {processes} processes: pyctcdecode {name}"
                report(title, base, wall, same, len(texts))
    unknown = decoder.model.tokenizer.unk_id
    for one in matrices:
        one[:, unknown] = -1e4
    mended = [decode_beams(one, tokens, config.decode, lm=lm)[0][0] for one in matrices]
    same = sum(map(eq, texts, mended))
    print(f"same text as pyctcdecode without its flaws: {same} of {len(texts)}")


def best(rounds: int, call: Callable[[], T]) -> tuple[float, T]:
    """Return the least wall time of several and the result: the machine may be busy."""
    least = math.inf
    for _ in range(rounds):
        started = time.perf_counter()
        result = call()
        least = min(least, time.perf_counter() - started)
    return least, result


def report(name: str, base: float, ours: float, same: int, count: int) -> None:
    print(
        f"{name} {base:.2f} s, ours {ours:.2f} s, {base / ours:.2f} x, same text {same} of {count}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--lm", type=Path, required=True)
    parser.add_argument("--beams", type=int, default=CtcConfig().beams)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    utterances = list(read_manifest(args.manifest))
    greedy(utterances, args.checkpoint, args.rounds)
    beam(utterances, args.checkpoint, args.lm, args.beams, args.rounds)


if __name__ == "__main__":
    main()
