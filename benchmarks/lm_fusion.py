"""What shallow fusion costs: beam search with and without the n-gram, in one run.

Example::

    python -m benchmarks.lm_fusion --text train-clean.txt.gz

A Whisper of tiny's size with random weights (its speed is the real one's), the full vocabulary
of 51,865 tokens and a 5 s window decodes random features with 5 beams. The sides alternate;
the median of the pairs' ratios is printed, as JSON::

    {"batch": 8, "beams": 5, "tokens": 24, "plain_s": 1.73, "fused_s": 1.77, "ratio": 1.02, ...}
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm import NGram, WordFusionProcessor
from lm.train import train

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

VOCABULARY = 51865
EOS = 50257
PROMPT = (50258, 50259, 50359, 50363)
FRAMES = 500  # 5 s


def token_texts(words: list[str], seed: int) -> list[str]:
    """Return a vocabulary like Whisper's: words with and without their space, pieces, specials."""
    draw = random.Random(seed)
    texts = [chr(code) for code in range(0x21, 0x7F)]
    texts += [f"\u0120{word}" for word in words]
    while len(texts) < EOS:
        piece = "".join(draw.choices("abcdefghijklmnoprstuvwy'", k=draw.randint(2, 7)))
        texts.append(f"\u0120{piece}" if draw.random() < 0.5 else piece)
    return texts[:EOS] + ["<|endoftext|>"] + [f"<|{n}|>" for n in range(EOS + 1, VOCABULARY)]


def tiny_whisper() -> WhisperForConditionalGeneration:
    """Return an untrained model of whisper-tiny's size with a 5 s window."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(1)
    config = WhisperConfig(
        vocab_size=VOCABULARY,
        d_model=384,
        encoder_layers=4,
        decoder_layers=4,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=1536,
        decoder_ffn_dim=1536,
        max_source_positions=FRAMES // 2,
        begin_suppress_tokens=None,
        suppress_tokens=None,
    )
    return WhisperForConditionalGeneration(config).eval()


def measure(
    text: Path, *, batch: int = 8, beams: int = 5, tokens: int = 24, repeats: int = 5
) -> dict[str, Any]:
    """Return the medians of both sides' seconds and of their ratio."""
    import torch
    from transformers import GenerationMixin

    with tempfile.TemporaryDirectory() as folder:
        info = train([text], Path(folder) / "lm")
        ngram = NGram(Path(folder) / "lm")
        words = (Path(folder) / "lm" / "unigrams.txt").read_text(encoding="utf-8").split()
    started = time.perf_counter()
    fusion = WordFusionProcessor(
        ngram,
        token_texts(words, seed=1),
        eos_id=EOS,
        prompt_length=len(PROMPT),
        alpha=0.5,
        beta=0.5,
    )
    built = time.perf_counter() - started
    model = tiny_whisper()
    features = torch.randn(batch, 80, FRAMES)
    prompt = torch.tensor([PROMPT] * batch)

    def seconds(processors: list[WordFusionProcessor]) -> float:
        started = time.perf_counter()
        GenerationMixin.generate(
            model,
            features,
            decoder_input_ids=prompt,
            num_beams=beams,
            num_return_sequences=beams,
            # Both sides do the same number of steps.
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            logits_processor=processors,
        )
        return time.perf_counter() - started

    seconds([fusion])
    pairs = [(seconds([]), seconds([fusion])) for _ in range(repeats)]
    return {
        "batch": batch,
        "beams": beams,
        "tokens": tokens,
        "threads": torch.get_num_threads(),
        "ngrams": info.ngrams,
        "plain_s": round(statistics.median(plain for plain, _ in pairs), 3),
        "fused_s": round(statistics.median(fused for _, fused in pairs), 3),
        "ratio": round(statistics.median(fused / plain for plain, fused in pairs), 3),
        "build_s": round(built, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, required=True, help="what the n-gram is built of")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    for batch in args.batch:
        result = measure(args.text, batch=batch, beams=args.beams, repeats=args.repeats)
        print(json.dumps(result))


if __name__ == "__main__":
    main()
