"""A small GPT-2 in the published Hugging Face layout, trained on the n-gram's text in a minute.

The class, the files and the marks are those of openai-community/gpt2; only the sizes and the
byte-level BPE vocabulary are small, so that what judges texts with this model does the same with
the published ones. It is for tests and for runs without a network.

    python -m recipes.tiny_gpt2 --text exp/mini/data/train.jsonl --dev exp/mini/data/dev.jsonl \\
        --out exp/mini/gpt2

reads manifests and plain text files (one sentence to a line, ``.gz`` too), normalises them as
`lm.train` does, and writes config.json, model.safetensors, tokenizer.json, vocab.json,
merges.txt and gpt2.json, which says
{"sentences":1112,"parameters":249216,"steps":400,"loss":1.04,"perplexity":5.4,...}.
"""

from __future__ import annotations

import argparse
import logging
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lm.sentences import read_sentences
from manifests import part_path, write_atomic, write_json
from recipes.texts import learn_bpe

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

END = "<|endoftext|>"  # GPT-2's only mark: before and after every text
_IGNORED = -100  # left out of the loss


class Gpt2Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and training; the defaults learn a thousand short sentences in 20 s on one core."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    merges: int = 300  # learned tokens beyond the 256 bytes
    context: int = 128  # tokens
    dropout: float = 0.1
    steps: int = 400
    batch: int = 32  # sentences
    learning_rate: float = 3e-3
    seed: int = 1


class Gpt2Info(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``gpt2.json`` says."""

    sentences: int
    parameters: int
    steps: int
    loss: float  # per token, of the last tenth of the steps
    perplexity: float | None = None  # of dev's words and sentence ends, as `lm.train` counts it
    settings: Gpt2Settings


def build(
    texts: Sequence[str],
    out: Path,
    settings: Gpt2Settings | None = None,
    *,
    dev: Sequence[str] = (),
) -> Gpt2Info:
    """Train a GPT-2 on normalised texts, one sentence each, and write it to ``out``.

    The same arguments give the same weights on one machine. A folder ``out`` that exists is
    replaced. ValueError when there are no texts.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

    if not texts:
        raise ValueError("no text to learn from, must be at least one sentence")
    settings = settings or Gpt2Settings()
    vocab, merges = learn_bpe(texts, settings.merges)
    vocab[END] = len(vocab)
    tokenizer = GPT2Tokenizer(vocab=vocab, merges=merges)
    config = GPT2Config(
        vocab_size=len(vocab),
        n_positions=settings.context,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.heads,
        resid_pdrop=settings.dropout,
        embd_pdrop=settings.dropout,
        attn_pdrop=settings.dropout,
        bos_token_id=vocab[END],
        eos_token_id=vocab[END],
    )
    with torch.random.fork_rng(devices=[]):  # a caller's own draws stay as they are
        torch.manual_seed(settings.seed)
        model = GPT2LMHeadModel(config)
        loss = _fit(model, tokenizer, texts, settings)
    part = part_path(out)  # so that a folder that exists is whole
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    # Published too, and no longer written by transformers.
    write_json(part / "vocab.json", vocab, indent=None)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    write_atomic(part / "merges.txt", "\n".join(lines) + "\n")
    info = Gpt2Info(
        sentences=len(texts),
        parameters=model.num_parameters(),
        steps=settings.steps,
        loss=round(loss, 4),
        perplexity=_perplexity(part, dev) if dev else None,
        settings=settings,
    )
    write_json(part / "gpt2.json", info)
    shutil.rmtree(out, ignore_errors=True)
    part.replace(out)
    return info


def _fit(model: Any, tokenizer: Any, texts: Sequence[str], settings: Gpt2Settings) -> float:
    """Train in place; return the mean loss of the last tenth of the steps."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    losses: list[float] = []
    for ids, labels in _batches(tokenizer, texts, settings):
        logits = model(input_ids=ids, attention_mask=(labels != _IGNORED).long()).logits
        loss: Any = torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=_IGNORED
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if len(losses) % 100 == 0:
            log.info("step %d of %d: loss %.3f", len(losses), settings.steps, losses[-1])
    model.eval()
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def _batches(
    tokenizer: Any, texts: Sequence[str], settings: Gpt2Settings
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``steps`` random batches: tokens, padded to the right, and labels."""
    import torch

    end = tokenizer.eos_token_id
    spelled = [
        torch.tensor([end, *ids, end][: settings.context])
        for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    ]
    for _ in range(settings.steps):
        drawn = [spelled[i] for i in torch.randint(len(spelled), (settings.batch,)).tolist()]
        ids = torch.nn.utils.rnn.pad_sequence(drawn, batch_first=True, padding_value=end)
        lengths = torch.tensor([len(one) for one in drawn])
        beyond = torch.arange(ids.shape[1]) >= lengths[:, None]
        yield ids, ids.masked_fill(beyond, _IGNORED)


def _perplexity(folder: Path, texts: Sequence[str]) -> float:
    from lm.causal import CausalLm
    from lm.model import CausalOptions

    scores = CausalLm(folder, CausalOptions(device="cpu")).score_texts(texts)
    events = sum(len(text.split()) + 1 for text in texts)
    return round(math.exp(-sum(scores) / events), 3)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.tiny_gpt2",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--dev", type=Path, metavar="FILE", help="measure its perplexity")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    for field in msgspec.structs.fields(Gpt2Settings):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(field.default), default=field.default)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    if not sys.stderr.isatty():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    names = [field.name for field in msgspec.structs.fields(Gpt2Settings)]
    settings = Gpt2Settings(**{name: getattr(args, name) for name in names})
    try:
        texts = [text for path in args.text for text in read_sentences(path)]
        dev = list(read_sentences(args.dev)) if args.dev else []
        info = build(texts, args.out, settings, dev=dev)
    except (OSError, ValueError) as error:
        print(f"tiny_gpt2: {error}", file=sys.stderr)
        return 1
    log.info("%s: %d parameters, dev perplexity %s", args.out, info.parameters, info.perplexity)
    return 0


if __name__ == "__main__":
    sys.exit(main())
