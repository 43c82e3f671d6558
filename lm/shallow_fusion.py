"""Shallow fusion of a word n-gram into token-by-token search, for Hugging Face Whisper.

A hypothesis is ranked by ``AM + alpha * ln P(text) + beta * words``. The tokens are byte-level
BPE, the n-gram knows words; so a word is charged when the next token shows that it is
complete: a token that starts with a space (or a timestamp), or the end of text, which is also
charged the sentence end. Between two such tokens nothing is added. Since normalisation never
looks across white space, the sum of these charges is exactly the n-gram's score of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from lm.ngram import NGram, State, words_of
from manifests import LogProb

if TYPE_CHECKING:
    from torch import Tensor

_SPECIAL = re.compile(r"<\|.*\|>")
_TIMESTAMP = re.compile(r"<\|\d+\.\d+\|>")
_SPACES = b" \t\n\r\v\f"


@cache
def _byte_of() -> dict[str, int]:
    """Return GPT-2's table of the printable characters that stand for bytes in BPE tokens."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(0x100 + n): byte for n, byte in enumerate(others)})
    table[" "] = 0x20  # tokens added by hand are not byte-mapped
    return table


def token_bytes(token: str | None, token_id: int = -1) -> bytes:
    r"""Return the UTF-8 bytes a byte-level BPE token stands for; specials stand for none.

    >>> token_bytes("\u0120goed"), token_bytes("\u00c3\u00a9"), token_bytes("<|en|>")
    (b' goed', b'\xc3\xa9', b'')
    """
    if token is None or _SPECIAL.fullmatch(token):
        return b""
    table = _byte_of()
    try:
        return bytes([table[char] for char in token])
    except KeyError:
        raise ValueError(f"token {token_id} is {token!r}, must be byte-level BPE") from None


def byte_level(text: str) -> str:
    r"""Return the byte-level BPE token that stands for ``text``: `token_bytes` undone.

    For tokenizers of other kinds, such as SentencePiece.

    >>> token_bytes(byte_level(" goé")).decode()
    ' goé'
    """
    return "".join(_char_of()[byte] for byte in text.encode())


@cache
def _char_of() -> dict[int, str]:
    return {byte: char for char, byte in _byte_of().items() if char != " "}


class Fused(NamedTuple):
    """What fusion has charged so far, unweighted."""

    lm: LogProb  # natural log
    words: int


class _Node(NamedTuple):
    """A token prefix: what is charged, and what would be if its last word ended here."""

    state: State  # of the n-gram, before the pending word
    charged: Fused
    pending: bytes
    next_state: State
    complete: Fused
    end: LogProb  # of the sentence, after the pending word


class WordFusionProcessor:
    """A logits processor that adds the n-gram at word boundaries; for ``logits_processor=[...]``.

    Built once per checkpoint and used for any number of batches. ``token_texts`` is
    ``tokenizer.convert_ids_to_tokens(range(len(tokenizer)))``; ``prompt_length`` counts the
    tokens in front of the text (Whisper's own loop sets it through `set_begin_index`).

    Beam search hands over log-probabilities; greedy search and sampling hand over raw logits:
    set ``raw_logits`` there, which normalises them first (needed for the scores, the choice
    is the same).

    Nothing is tracked between calls, so beams may be reordered at will; only the prefixes of
    the last call are kept, to extend them by one token. Set `max_new_tokens`, since with a large
    ``beta`` beams run on; and as ``beta > 0`` can raise a total from one step to the next,
    `generate`'s early stop, which expects falling totals, may miss a late gain.
    ValueError when the tokens are not byte-level BPE or ``eos_id`` is none of them.
    """

    def __init__(
        self,
        ngram: NGram,
        token_texts: Sequence[str | None],
        *,
        eos_id: int,
        prompt_length: int,
        alpha: float,
        beta: float,
        raw_logits: bool = False,
    ) -> None:
        if not 0 <= eos_id < len(token_texts):
            raise ValueError(f"eos_id is {eos_id}, must lie in [0, {len(token_texts)})")
        self.ngram = ngram
        self.alpha = alpha
        self.beta = beta
        self.raw_logits = raw_logits
        self._eos_id = eos_id
        self._begin = prompt_length
        self._bytes = [token_bytes(text, n) for n, text in enumerate(token_texts)]
        self._starts_word = [
            content[:1] in _SPACES if content else bool(text and _TIMESTAMP.fullmatch(text))
            for content, text in zip(self._bytes, token_texts, strict=True)
        ]
        self._root = self._node(ngram.begin(), Fused(0.0, 0), b"")
        self._known: dict[tuple[int, ...], _Node | None] = {}
        self._mask: Tensor | None = None

    def set_begin_index(self, begin_index: int) -> None:
        """Set the length of the prompt."""
        self._begin = begin_index

    def fused(self, tokens: Sequence[int]) -> Fused:
        """Return what the search added to a hypothesis, unweighted; ``tokens`` without the prompt.

        A sequence's score less ``alpha * lm + beta * words`` is the recogniser's own score.
        With the end of text ``lm`` is the n-gram's score of the whole text; without it (cut off
        at the length limit) the last word and the sentence end have not been charged.
        """
        node = self._root
        for token in tokens:
            if token == self._eos_id:
                return Fused(node.complete.lm + node.end, node.complete.words)
            node = self._extend(node, token)
        return node.charged

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return ``scores``, (rows, vocabulary), with the n-gram added; ids are (rows, length)."""
        import torch

        known: dict[tuple[int, ...], _Node | None] = {}
        to_word, to_end = [], []
        for row in input_ids[:, self._begin :].tolist():
            prefix = tuple(row)
            if prefix not in known:
                known[prefix] = self._find(prefix)
            node = known[prefix]
            word = 0.0 if node is None else self._weighted(node)
            to_word.append(word)
            to_end.append(0.0 if node is None else word + self.alpha * node.end)
        self._known = known
        if self.raw_logits:
            scores = torch.log_softmax(scores, dim=-1)
        result = torch.addr(scores, scores.new_tensor(to_word), self._mask_like(scores))
        result[:, self._eos_id] += scores.new_tensor(to_end)
        return result

    def _weighted(self, node: _Node) -> float:
        lm = node.complete.lm - node.charged.lm
        return self.alpha * lm + self.beta * (node.complete.words - node.charged.words)

    def _find(self, prefix: tuple[int, ...]) -> _Node | None:
        """Return the node of a prefix, or None when its text has ended."""
        if prefix in self._known:
            return self._known[prefix]
        if not prefix:
            return self._root
        if prefix[:-1] in self._known:
            parent = self._known[prefix[:-1]]
            ended = parent is None or prefix[-1] == self._eos_id
            return None if ended or parent is None else self._extend(parent, prefix[-1])
        node = self._root
        for token in prefix:
            if token == self._eos_id:
                return None
            node = self._extend(node, token)
        return node

    def _extend(self, node: _Node, token: int) -> _Node:
        if self._starts_word[token]:
            return self._node(node.next_state, node.complete, self._bytes[token])
        return self._node(node.state, node.charged, node.pending + self._bytes[token])

    def _node(self, state: State, charged: Fused, pending: bytes) -> _Node:
        words = _words_of_bytes(pending)
        next_state, score = self.ngram.score_words(state, words)
        complete = Fused(charged.lm + score, charged.words + len(words))
        return _Node(
            state, charged, pending, next_state, complete, self.ngram.score_end(next_state)
        )

    def _mask_like(self, scores: Tensor) -> Tensor:
        """Return 1 for tokens that start a word, else 0, on the device of ``scores``."""
        import torch

        mask = self._mask
        size = scores.shape[-1]
        if mask is None or mask.shape[0] != size or mask.device != scores.device:
            # The model's vocabulary may be padded beyond the tokenizer's.
            starts = (self._starts_word + [False] * size)[:size]
            mask = torch.tensor(starts, dtype=scores.dtype, device=scores.device)
        self._mask = mask.to(scores.dtype)
        return self._mask


@lru_cache(maxsize=1 << 16)
def _words_of_bytes(pending: bytes) -> tuple[str, ...]:
    """Return the words of a piece of text that may break off inside a character."""
    return words_of(pending.decode("utf-8", errors="replace"))
