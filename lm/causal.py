"""Any Hugging Face causal language model (GPT-2 and its kin) as a judge of texts.

What is scored is ``bos text eos``: how probable the text is as a whole utterance, its end
included, so that a hypothesis gains nothing by being cut short. By default the text is
normalised first (`manifests.normalize_text`), although a published model was trained on written
text: recognisers differ in case and punctuation, and raw texts would be judged by their spelling.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm.model import CausalOptions
from manifests import LogProb, normalize_text
from manifests.device import Device, Precision, pick_device, pick_precision
from manifests.hub import model_folder

# Logits of one batch (tokens x vocabulary): in float32, of which there are two or three copies
# at a time, 0.25 GB on a CPU and 2 GB on a card.
_LOGITS: dict[Device, int] = {"cpu": 1 << 26, "mps": 1 << 26, "cuda": 1 << 29}
_UNLIMITED = 1 << 20  # what tokenisers and state-space models say of their length is no limit
_SHOWN = 3


class CausalLm:
    """A causal LM from a hub id or a folder; ValueError says what is wrong with it."""

    def __init__(self, place: str | Path, options: CausalOptions) -> None:
        from transformers import AutoTokenizer

        self.folder = model_folder(place)
        self._check_kind()
        self.device = pick_device(options.device)
        self.model = self._load(pick_precision(options.precision, self.device))
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        self._normalized = options.text == "normalized"
        self._begin, self._end = self._marks(options.begin)
        self._limit = _longest(self.model.config)

    def score_texts(self, texts: Sequence[str]) -> list[LogProb]:
        """Return ln P of each text and its end after ``bos``; of "" that of the end alone.

        A text that is longer than the model's context is scored in parts, each token after at
        least half a context.
        """
        spelled = [normalize_text(text) if self._normalized else text.strip() for text in texts]
        distinct = list(dict.fromkeys(spelled))
        parts = [
            (number, part, first)
            for number, ids in enumerate(self._tokens(distinct))
            for part, first in windows(ids, self._limit)
        ]
        totals = [0.0] * len(distinct)
        for batch in self._batches(parts):
            for (number, _, _), score in zip(batch, self._score(batch), strict=True):
                totals[number] += score
        return [dict(zip(distinct, totals, strict=True))[text] for text in spelled]

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        # Or a text that spells a mark, such as "<|endoftext|>", would become that mark.
        found = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
        return [[self._begin, *ids, self._end] for ids in found["input_ids"]]

    def _batches(self, parts: list[_Part]) -> Iterator[list[_Part]]:
        """Yield parts of like length together, the longest first: memory only shrinks."""
        room = max(1, _LOGITS[self.device] // self.model.config.get_text_config().vocab_size)
        batch: list[_Part] = []
        for part in sorted(parts, key=lambda part: -len(part[1])):
            if batch and (len(batch) + 1) * len(batch[0][1]) > room:
                yield batch
                batch = []
            batch.append(part)
        if batch:
            yield batch

    def _score(self, batch: Sequence[_Part]) -> list[LogProb]:
        """Return for each part the sum of ln P of its tokens from ``first`` on."""
        import torch

        longest = max(len(ids) for _, ids, _ in batch)
        # To the right: what comes later cannot change what a causal model says of a token.
        ids = torch.full((len(batch), longest), self._end)
        seen = torch.zeros_like(ids)
        wanted = torch.zeros(len(batch), longest - 1)
        for row, (_, part, first) in enumerate(batch):
            ids[row, : len(part)] = torch.tensor(part)
            seen[row, : len(part)] = 1
            wanted[row, first - 1 : len(part) - 1] = 1
        ids, seen = ids.to(self.device), seen.to(self.device)
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=seen, use_cache=False).logits
            lost = torch.nn.functional.cross_entropy(
                logits[:, :-1].float().transpose(1, 2), ids[:, 1:], reduction="none"
            )
        # In float64 on the CPU, for MPS has none.
        return [-float(score) for score in (lost.cpu().double() * wanted).sum(1)]

    def _check_kind(self) -> None:
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        path = self.folder / "config.json"
        if not path.is_file():
            raise ValueError(f"{self.folder}: no config.json, must be a Hugging Face model folder")
        named = json.loads(path.read_text(encoding="utf-8")).get("architectures") or []
        if named and named[0] not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
            raise ValueError(f"{self.folder}: is a {named[0]}, must be a causal language model")

    def _load(self, precision: Precision) -> Any:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar

        if not sys.stderr.isatty():
            disable_progress_bar()
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        model, report = AutoModelForCausalLM.from_pretrained(
            self.folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
        missing = sorted(report["missing_keys"])
        if missing:  # transformers would leave them random, and only warn
            raise ValueError(
                f"{self.folder}: {len(missing)} weights are missing "
                f"({', '.join(missing[:_SHOWN])}), must be whole"
            )
        return model.to(self.device).eval()

    def _marks(self, begin: str | None) -> tuple[int, int]:
        """Return the tokens that stand before and after every text."""
        tokenizer = self.tokenizer
        if begin is not None:
            known = tokenizer.get_vocab()
            if begin not in known:
                raise ValueError(f"{self.folder}: its tokeniser knows no token {begin!r}")
            first = known[begin]
        else:
            first = tokenizer.bos_token_id
        if first is None:
            raise ValueError(
                f"{self.folder}: its tokeniser has no bos token, so that nothing predicts the "
                "first word; name the token that a text begins after (--begin-token)"
            )
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"{self.folder}: its tokeniser has no eos token, must have one to score a text's "
                "end"
            )
        return int(first), int(tokenizer.eos_token_id)


_Part = tuple[int, list[int], int]
"""Number of the text, tokens, and from which of them on they are scored."""


def windows(ids: list[int], limit: int) -> Iterator[tuple[list[int], int]]:
    """Yield parts of at most ``limit`` tokens, and from which of its tokens on each is scored.

    Every token but the first is scored once, and after all that fits before it or at least
    half of ``limit``.

    >>> list(windows([0, 1, 2, 3, 4, 5, 6], 4))
    [([0, 1, 2, 3], 1), ([2, 3, 4, 5], 2), ([4, 5, 6], 2)]
    """
    start, first = 0, 1
    while first < len(ids):
        part = ids[start : start + limit]
        yield part, first - start
        first = start + len(part)
        start = first - limit // 2


def _longest(config: Any) -> int:
    """Return how many tokens a model can look at."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit and limit > 1 else _UNLIMITED
