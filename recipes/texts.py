"""The texts that the tiny models learn their vocabularies from, and byte-level BPE of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from manifests.jsonl import read_rows
from manifests.rows import Utterance
from manifests.text import normalize_text


def read_texts(paths: Iterable[Path], *, normalized: bool = False) -> Iterator[str]:
    """Yield the non-empty texts of manifests (``.jsonl``) and plain text files.

    ``normalized`` must say what the config's ``text`` says, or the vocabulary will not fit what
    is trained on.
    """
    for path in paths:
        if path.suffix == ".jsonl":
            texts: Iterable[str] = (row.text or "" for row in read_rows(path, Utterance))
        else:
            texts = path.read_text(encoding="utf-8").splitlines()
        for text in texts:
            if text := normalize_text(text) if normalized else text.strip():
                yield text


def learn_bpe(texts: Iterable[str], merges: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return GPT-2's kind of vocabulary: 256 bytes and at most ``merges`` learned tokens.

    Also the merges themselves, in order. The same texts give the same vocabulary.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    learned = json.loads(bpe.to_str())["model"]
    return learned["vocab"], [(left, right) for left, right in learned["merges"]]
