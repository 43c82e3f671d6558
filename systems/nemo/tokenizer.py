"""A new SentencePiece vocabulary for a NeMo model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from manifests.jsonl import write_atomic


def train_tokenizer(texts: Iterable[str], folder: Path, size: int) -> Path:
    """Write NeMo's tokenizer files to ``folder`` and return it: `tokenizer.model` and the like.

    At most ``size`` tokens: fewer when the texts have not got so many. ValueError when there is
    no text, or more different characters than tokens.
    """
    import sentencepiece

    lines = [" ".join(text.split()) for text in texts]
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError("no text to learn a tokenizer from, must be at least one sentence")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # NeMo's own settings, without the files in between. Its create_spt_model keeps extra
        # spaces, so that a text that ends in one teaches a token of nothing.
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_prefix=str(folder / "tokenizer"),
            model_type="bpe",
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            bos_id=-1,
            eos_id=-1,
            normalization_rule_name="identity",
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(f"tokenizer of {size} tokens: {str(error).splitlines()[-1]}") from None
    vocabulary = (folder / "tokenizer.vocab").read_text(encoding="utf-8").splitlines()
    pieces = [line.partition("\t")[0] for line in vocabulary]
    write_atomic(folder / "vocab.txt", "\n".join(_as_wordpieces(pieces)) + "\n")
    return folder


def _as_wordpieces(pieces: Iterable[str]) -> list[str]:
    """Return NeMo's `vocab.txt`: what does not begin a word with ## before it."""
    mark = "\u2581"
    return [
        piece[1:] if piece.startswith(mark) else f"##{piece}"
        for piece in pieces
        if piece != "<unk>"
    ]
