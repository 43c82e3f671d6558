"""Any language model that can judge a text: what all of them do, opened by folder or hub id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from lm.ngram import BINARY, NGram
from manifests import LogProb
from manifests.hub import has_weights

_REMEMBERED = 1 << 20  # texts: some 200 MB
_KENLM_FILES = (".arpa", ".binary", ".bin", ".klm")


class LanguageModel(Protocol):
    """Scores whole texts, one utterance each."""

    def score_texts(self, texts: Sequence[str]) -> list[LogProb]:
        """Return ln P of each text, sentence begin and end included, in the given order."""
        ...


class Remembering:
    """A language model that is asked for each text once, for searches that ask again and again."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self._known: dict[str, LogProb] = {}

    @classmethod
    def of(cls, lm: LanguageModel) -> Remembering:
        """Return a model that remembers: ``lm`` itself, where it does."""
        return lm if isinstance(lm, cls) else cls(lm)

    def score_texts(self, texts: Sequence[str]) -> list[LogProb]:
        """Return ln P of each text; see `LanguageModel`."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(new, self.lm.score_texts(new), strict=True))
        return [self._known[text] for text in texts]


def ngram_of(lm: LanguageModel) -> NGram | None:
    """Return the n-gram that a model is, or remembers for; None: it has no words to go by."""
    asked = lm.lm if isinstance(lm, Remembering) else lm
    return asked if isinstance(asked, NGram) else None


class CausalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a Hugging Face model needs to be told; an n-gram needs nothing."""

    text: Literal["normalized", "raw"] = "normalized"  # as it is asked, see `lm.causal`
    begin: str | None = None  # the token before every text; None = the tokeniser's bos
    device: str = "auto"
    precision: str = "auto"


def open_lm(place: str | Path, causal: CausalOptions | None = None) -> LanguageModel:
    """Return the language model of a folder, a KenLM file or a hub id.

    A folder with ``lm.binary`` is an n-gram, any other a Hugging Face causal LM, which
    ``causal`` is for. ValueError or OSError says what is wrong with it.
    """
    path = Path(place).expanduser()
    if (path / BINARY).is_file() or path.suffix in _KENLM_FILES:
        return NGram(path)
    if path.is_dir() and not has_weights(path):
        raise ValueError(
            f"{place}: holds neither {BINARY} (made by python -m lm.train) nor a model's weights, "
            "must be a language model"
        )
    from lm.causal import CausalLm

    return CausalLm(place, causal or CausalOptions())
