"""A small, untrained Whisper in the published Hugging Face layout, for runs without a network.

The classes, the files, the order of the special tokens and the generation keys are those of
openai/whisper-*; only the sizes and the byte-level BPE vocabulary (learned from the given texts)
are small, so what loads, trains and decodes this model does the same with the published ones.

    python -m recipes.tiny_whisper --text train.jsonl --out exp/mini/init --window 4 --seed 1

reads the `text` of manifests (`.jsonl`) or plain text files, one sentence to a line, and writes
`config.json`, `model.safetensors`, `generation_config.json`, `preprocessor_config.json`,
`tokenizer.json`, `vocab.json`, `merges.txt`, `normalizer.json` and the like to --out.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import logging
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.jsonl import part_path, write_atomic, write_json
from manifests.meta import write_meta
from recipes.texts import learn_bpe, read_texts

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperTokenizer

log = logging.getLogger(__name__)

END_OF_TEXT = "<|endoftext|>"
# whisper-tiny to large-v2 know 99 languages; large-v3 added Cantonese as the hundredth.
LANGUAGE_COUNT = 99
TIMESTAMPS = 1501  # <|0.00|> to <|30.00|> in steps of 0.02 s, whatever the window
# Published models are drawn with 0.02, for widths of 384 and more; one over the square root of a
# width of 128 is 0.09. In between, the tiny model learns to listen within 200 steps.
INIT_STD = 0.05
# Symbols that are not speech, as in openai/whisper's tokenizer.non_speech_tokens.
NON_SPEECH = '"#()*+/:;<=>@[\\]^_`{|}~'


def build(
    texts: Iterable[str],
    out: Path,
    *,
    window: int,
    d_model: int = 128,
    layers: int = 2,
    heads: int = 4,
    merges: int = 400,
    seed: int = 1,
) -> Path:
    """Write a randomly initialised Whisper with ``window`` s of audio context; return ``out``.

    ``layers`` counts the encoder's and, again, the decoder's; ``merges`` is the most that the
    vocabulary may learn beyond the 256 bytes. The same arguments give the same weights and
    vocabulary. A folder ``out`` that exists is replaced.
    """
    import torch
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
    )

    if window < 1:
        raise ValueError(f"window is {window} s, must be a whole number of seconds, at least 1")
    tokenizer = _tokenizer(texts, merges)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=window)
    ids = tokenizer.convert_tokens_to_ids
    end = ids(END_OF_TEXT)
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=80,
        d_model=d_model,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * d_model,
        decoder_ffn_dim=4 * d_model,
        max_source_positions=50 * window,  # 100 frames a second, halved by the convolutions
        max_target_positions=448,
        decoder_start_token_id=ids("<|startoftranscript|>"),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        init_std=INIT_STD,
    )
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config)
    model.generation_config = _generation_config(tokenizer, layers, heads)
    part = part_path(out)  # so that a folder that exists is whole
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.save_pretrained(part)
    WhisperProcessor(extractor, tokenizer).save_pretrained(part)
    extractor.save_pretrained(part)  # preprocessor_config.json: the processor leaves it out
    _save_slow_tokenizer(tokenizer, part)
    write_meta(part / "config.json", {"seed": seed, "parameters": model.num_parameters()})
    shutil.rmtree(out, ignore_errors=True)
    part.replace(out)
    return out


def _tokenizer(texts: Iterable[str], merges: int) -> WhisperTokenizer:
    """Return a byte-level BPE tokenizer with Whisper's special tokens in the published order."""
    from tokenizers import AddedToken
    from transformers import WhisperTokenizer

    # Whisper's targets begin with a space, so that the first word is spelled like the others.
    vocab, learned = learn_bpe((" " + text for text in texts), merges)
    # The published multilingual vocabularies hold an empty token before <|endoftext|>;
    # CTranslate2 tells multilingual models by it.
    vocab[""] = len(vocab)
    vocab[END_OF_TEXT] = len(vocab)
    tokenizer = WhisperTokenizer(
        vocab=vocab,
        merges=learned,
        pad_token=END_OF_TEXT,  # without it, padding a batch raises
    )
    # Only extra_special_tokens enter all_special_ids, after which the timestamps must follow.
    tokenizer.add_special_tokens(
        {
            "extra_special_tokens": [
                AddedToken(token, special=True, normalized=False) for token in _special_tokens()
            ]
        }
    )
    tokenizer.add_tokens(
        [
            AddedToken(f"<|{0.02 * step:.2f}|>", special=False, normalized=False)
            for step in range(TIMESTAMPS)
        ]
    )
    tokenizer.set_prefix_tokens(language="english", task="transcribe")
    return tokenizer


def _languages() -> list[str]:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return list(LANGUAGES)[:LANGUAGE_COUNT]


def _special_tokens() -> list[str]:
    """Return what follows <|endoftext|>; ids are looked up by position, so the order is fixed."""
    return [
        "<|startoftranscript|>",
        *(f"<|{code}|>" for code in _languages()),
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nocaptions|>",  # no speech: found as the id before <|notimestamps|>
        "<|notimestamps|>",
    ]


def _generation_config(tokenizer: WhisperTokenizer, layers: int, heads: int) -> GenerationConfig:
    """Return the published generation keys for this tokenizer.

    Built afresh: one derived from the model's config loses every Whisper key when it is loaded.
    """
    from transformers import GenerationConfig

    ids = tokenizer.convert_tokens_to_ids
    end = ids(END_OF_TEXT)
    space = ids("\u0120")  # how byte-level BPE writes a space
    vocab = tokenizer.get_vocab()
    signs = [before + sign for sign in NON_SPEECH for before in ("", "\u0120")]
    never = [vocab[sign] for sign in signs if sign in vocab]
    never += [
        ids(f"<|{name}|>")
        for name in (
            "startoftranscript",
            "translate",
            "transcribe",
            "startoflm",
            "startofprev",
            "nocaptions",
        )
    ]
    first_with_heads = layers // 2
    return GenerationConfig(
        # Published checkpoints list heads found to align; untrained, the upper half stands in.
        alignment_heads=[[i, j] for i in range(first_with_heads, layers) for j in range(heads)],
        begin_suppress_tokens=[space, end],
        bos_token_id=end,
        decoder_start_token_id=ids("<|startoftranscript|>"),
        eos_token_id=end,
        is_multilingual=True,
        lang_to_id={f"<|{code}|>": ids(f"<|{code}|>") for code in _languages()},
        language="en",
        max_initial_timestamp_index=50,
        max_length=448,
        no_timestamps_token_id=ids("<|notimestamps|>"),
        pad_token_id=end,
        prev_sot_token_id=ids("<|startofprev|>"),
        return_timestamps=False,
        suppress_tokens=sorted(never),
        task="transcribe",
        task_to_id={task: ids(f"<|{task}|>") for task in ("transcribe", "translate")},
    )


def _save_slow_tokenizer(tokenizer: WhisperTokenizer, out: Path) -> None:
    """Write the published tokenizer files that transformers no longer writes."""
    model: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    added = tokenizer.get_added_vocab()
    specials = [token for token in added if token in tokenizer.all_special_tokens]
    write_json(out / "vocab.json", model["vocab"], indent=None)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    write_atomic(out / "merges.txt", "\n".join(lines) + "\n")
    write_json(out / "added_tokens.json", added)
    role = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END_OF_TEXT)
    special_map = {"additional_special_tokens": specials, **role}
    write_json(out / "special_tokens_map.json", special_map)
    spelling = importlib.resources.files("whisper_normalizer") / "normalizers" / "english.json"
    with importlib.resources.as_file(spelling) as path:
        shutil.copyfile(path, out / "normalizer.json")


def main(argv: list[str] | None = None) -> int:
    """Build from the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.tiny_whisper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--normalized", action="store_true", help="as the configs' text says")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--window", type=int, default=4, help="seconds of audio (default 4)")
    parser.add_argument("--d-model", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--merges", type=int, default=400, help="learned tokens (default 400)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    if not sys.stderr.isatty():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    try:
        build(
            read_texts(args.text, normalized=args.normalized),
            args.out,
            window=args.window,
            d_model=args.d_model,
            layers=args.layers,
            heads=args.heads,
            merges=args.merges,
            seed=args.seed,
        )
    except (OSError, ValueError) as error:
        print(f"tiny_whisper: {error}", file=sys.stderr)
        return 1
    log.info("wrote %s", args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
