"""Whisper's generation keys, kept through loading and repaired from the tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperConfig, WhisperTokenizer

# Published English-only checkpoints have one token less, and no language or task to choose.
ENGLISH_VOCABULARY = 51864
_NOT_TEXT = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev")


def generation_config(
    folder: Path, config: WhisperConfig, tokenizer: WhisperTokenizer
) -> GenerationConfig:
    """Return a checkpoint's generation config with every key that Whisper's decoding needs.

    Read from the file itself: transformers drops all Whisper keys (lang_to_id, task_to_id,
    no_timestamps_token_id, alignment_heads, ...) of a file marked ``_from_model_config``, as
    any model built from a config and saved has, and then decodes without a language, silently.
    """
    from transformers import GenerationConfig

    path = folder / "generation_config.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    stored.pop("_from_model_config", None)
    stored.pop("transformers_version", None)
    # The prompt is built from language and task; a stored one contradicts it (and v5 refuses it).
    stored.pop("forced_decoder_ids", None)
    given = {key: value for key, value in stored.items() if value is not None}
    return GenerationConfig(**{**_from_tokenizer(config, tokenizer), **given})


def _from_tokenizer(config: WhisperConfig, tokenizer: WhisperTokenizer) -> dict[str, Any]:
    """Return what the keys must be, as far as model config and vocabulary tell."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    vocab = tokenizer.get_vocab()

    def ids(names: tuple[str, ...]) -> dict[str, int]:
        tokens = [f"<|{name}|>" for name in names]
        return {token: vocab[token] for token in tokens if token in vocab}

    languages = ids(tuple(LANGUAGES))
    special = ids((*_NOT_TEXT, "nospeech", "nocaptions"))
    keys: dict[str, Any] = {
        "decoder_start_token_id": config.decoder_start_token_id,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "max_length": config.max_target_positions,
        "return_timestamps": False,
        "is_multilingual": bool(languages) and config.vocab_size != ENGLISH_VOCABULARY,
        "no_timestamps_token_id": vocab["<|notimestamps|>"],
        "suppress_tokens": sorted(special.values()),
        "begin_suppress_tokens": [vocab["\u0120"], config.eos_token_id],
        "prev_sot_token_id": vocab.get("<|startofprev|>"),
    }
    if keys["is_multilingual"]:
        tasks = {task: vocab[f"<|{task}|>"] for task in ("transcribe", "translate")}
        keys |= {"lang_to_id": languages, "task_to_id": tasks}
    return keys


def prompt_tokens(
    generation: GenerationConfig, language: str, task: str = "transcribe"
) -> list[int]:
    """Return what the decoder starts from: <|startoftranscript|>, language, task, no timestamps.

    "en", "en-US" and "English" are one language. An English-only checkpoint has neither
    languages nor tasks. ValueError names what it has.
    """
    start, plain = generation.decoder_start_token_id, generation.no_timestamps_token_id
    if generation.is_multilingual:
        return [start, _language(generation, language), generation.task_to_id[task], plain]
    if task != "transcribe" or not language.lower().startswith("en"):
        raise ValueError(f"cannot {task} {language!r}, an English-only model transcribes 'en'")
    return [start, plain]


def _language(generation: GenerationConfig, language: str) -> int:
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    ids: dict[str, int] = generation.lang_to_id
    code = language.lower().replace("_", "-")
    for candidate in (code, code.partition("-")[0], TO_LANGUAGE_CODE.get(code)):
        if f"<|{candidate}|>" in ids:
            return ids[f"<|{candidate}|>"]
    known = " ".join(sorted(token[2:-2] for token in ids))
    raise ValueError(f"language is {language!r}, must be one of: {known}")


def no_speech_token(generation: GenerationConfig) -> int:
    """Return the id of <|nospeech|> (<|nocaptions|> in older vocabularies)."""
    return int(generation.no_timestamps_token_id) - 1
