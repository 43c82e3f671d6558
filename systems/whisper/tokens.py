"""Between Whisper's tokens and words: the prompt, the text of a hypothesis, its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lm.shallow_fusion import token_bytes
from systems.whisper.generation import no_speech_token, prompt_tokens

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperTokenizer

_SPACES = frozenset(b" \t\n\r\v\f")


@dataclass(frozen=True)
class WordSpan:
    """A word and the tokens [first, last) that spell it, punctuation and leading space included."""

    text: str
    first: int
    last: int


class Tokens:
    """What the decoder needs to know of a tokenizer."""

    def __init__(self, tokenizer: WhisperTokenizer, generation: GenerationConfig) -> None:
        self._tokenizer = tokenizer
        self._generation = generation
        self.texts: list[str | None] = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self.eos: int = generation.eos_token_id
        self.sot: int = generation.decoder_start_token_id
        self.no_speech = no_speech_token(generation)
        self._bytes = [token_bytes(text, number) for number, text in enumerate(self.texts)]
        # Specials and timestamps: an n-gram charges nothing for them, so a search that may say
        # them flees into them.
        self.not_text: frozenset[int] = frozenset(
            number
            for number, content in enumerate(self._bytes)
            if not content and number != self.eos
        )

    def prefix(
        self, language: str, task: Literal["transcribe", "translate"], prompt: Sequence[int] = ()
    ) -> list[int]:
        """Return what stands before the text; ValueError for a language that is not known."""
        before = [self._generation.prev_sot_token_id, *prompt] if prompt else []
        return [*before, *prompt_tokens(self._generation, language, task)]

    def encode(self, text: str) -> list[int]:
        """Return the tokens of ``text`` as in training, where every text begins with a space."""
        ids: list[int] = self._tokenizer.encode(" " + text.strip(), add_special_tokens=False)
        return ids if text.strip() else []

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text that tokens spell, special ones and timestamps left out."""
        return self._content(tokens).decode("utf-8", errors="replace").strip()

    def words(self, tokens: Sequence[int]) -> list[WordSpan]:
        """Return the words of `text`, in order: what stands between spaces.

        A token belongs to the word of its first byte that is no space.
        """
        spans: list[WordSpan] = []
        spelled, first = b"", 0
        for index, token in enumerate(tokens):
            content = self._bytes[token]
            if content[:1] and content[0] in _SPACES and spelled.strip():
                spans += _split(spelled, first, index)
                spelled, first = b"", index
            if not spelled.strip() and content.strip():
                first = index
            spelled += content
        if spelled.strip():
            last = max(i for i, token in enumerate(tokens) if self._bytes[token].strip()) + 1
            spans += _split(spelled, first, last)
        return spans

    def _content(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self._bytes[token] for token in tokens)


def _split(spelled: bytes, first: int, last: int) -> list[WordSpan]:
    """Return the words of a run of tokens: several only where a token has a space inside."""
    text = spelled.decode("utf-8", errors="replace")
    return [WordSpan(word, first, last) for word in text.split()]
