"""The tiny Whisper is what transformers takes for a published one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recipes.tiny_whisper import LANGUAGE_COUNT, TIMESTAMPS, build, main

TEXTS = ("the dog goed home", "I see two foots and one tooth", "my tooths don't hurt") * 2
# What openai/whisper-* repositories hold.
PUBLISHED = {
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors",
    "normalizer.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(TEXTS, tmp_path_factory.mktemp("tiny") / "model", window=2, d_model=32, heads=2)


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    from transformers import WhisperProcessor

    return WhisperProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(folder)


def test_the_published_files_and_nothing_half_written(folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} >= PUBLISHED
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_ids_lie_where_they_are_looked_up(processor: Any) -> None:
    tokenizer = processor.tokenizer
    ids = tokenizer.convert_tokens_to_ids
    end = ids("<|endoftext|>")
    sot = ids("<|startoftranscript|>")
    assert tokenizer.convert_ids_to_tokens(220) == "\u0120"
    assert tokenizer.get_vocab()[""] == end - 1
    assert sot == end + 1
    assert ids("<|en|>") == sot + 1
    # The order of openai/whisper's tokenizer, from the last language on.
    tail = ("translate", "transcribe", "startoflm", "startofprev", "nocaptions", "notimestamps")
    first = sot + 1 + LANGUAGE_COUNT
    assert [ids(f"<|{name}|>") for name in tail] == list(range(first, first + len(tail)))
    assert ids("<|0.00|>") == tokenizer.all_special_ids[-1] + 1
    assert ids("<|30.00|>") == ids("<|0.00|>") + TIMESTAMPS - 1 == len(tokenizer) - 1
    assert tokenizer.prefix_tokens == [sot, ids("<|en|>"), first + 1, ids("<|notimestamps|>")]


def test_text_survives_and_timestamps_are_told_apart(processor: Any) -> None:
    tokenizer = processor.tokenizer
    for text in (*TEXTS, "unseen W\u00f6rter, 1 a I"):
        ids = tokenizer(f" {text}").input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == f" {text}"
    stamped = tokenizer.convert_tokens_to_ids(["<|0.00|>", "\u0120the", "<|1.20|>"])
    assert tokenizer.decode(stamped, decode_with_timestamps=True) == "<|0.00|> the<|1.20|>"
    assert tokenizer.normalize("The Colour, goed!") == "the color goed"


def test_vocab_and_merges_are_those_of_the_tokenizer(folder: Path, processor: Any) -> None:
    from transformers import WhisperTokenizer

    vocab = json.loads((folder / "vocab.json").read_text())
    merges = (folder / "merges.txt").read_text().splitlines()[1:]
    slow = WhisperTokenizer(vocab=vocab, merges=[tuple(line.split(" ")) for line in merges])
    for text in TEXTS:
        tokens = [
            tokenizer(f" {text}", add_special_tokens=False).input_ids
            for tokenizer in (slow, processor.tokenizer)
        ]
        assert tokens[0] == tokens[1]


def test_the_generation_keys_live_through_loading(model: Any, processor: Any) -> None:
    generation = model.generation_config
    ids = processor.tokenizer.convert_tokens_to_ids
    assert generation.is_multilingual
    assert len(generation.lang_to_id) == LANGUAGE_COUNT
    assert generation.lang_to_id["<|en|>"] == ids("<|en|>")
    assert generation.task_to_id == {t: ids(f"<|{t}|>") for t in ("transcribe", "translate")}
    assert (generation.language, generation.task) == ("en", "transcribe")
    assert generation.no_timestamps_token_id == ids("<|notimestamps|>")
    assert generation.begin_suppress_tokens == [220, ids("<|endoftext|>")]
    assert ids("<|nocaptions|>") in generation.suppress_tokens
    assert ids("<|endoftext|>") not in generation.suppress_tokens
    assert generation.alignment_heads == [[1, 0], [1, 1]]


def test_it_hears_its_window_and_generates_from_the_whole_prompt(
    model: Any, processor: Any
) -> None:
    audio = np.zeros(8000, dtype=np.float32)
    features = processor(audio, sampling_rate=16000, return_tensors="pt").input_features
    assert features.shape == (1, 80, 200)
    out = model.generate(features, max_new_tokens=5, return_dict_in_generate=True)
    assert out.sequences[0, :4].tolist() == processor.tokenizer.prefix_tokens


def test_a_seed_decides_everything(folder: Path, model: Any, tmp_path: Path) -> None:
    from transformers import WhisperForConditionalGeneration

    # Another process, since the order of sets and hashes differs between processes.
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    command = [sys.executable, "-m", "recipes.tiny_whisper", "--text", str(tmp_path / "texts.txt")]
    command += ["--out", str(tmp_path / "again"), "--window", "2", "--d-model", "32"]
    subprocess.run([*command, "--heads", "2", "--seed", "1"], check=True)
    for name in sorted(PUBLISHED):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    other = build(TEXTS, tmp_path / "other", window=2, d_model=32, heads=2, seed=2)
    weights = WhisperForConditionalGeneration.from_pretrained(other).proj_out.weight
    assert not torch.equal(weights, model.proj_out.weight)


def test_the_default_size_is_about_a_million_parameters(tmp_path: Path) -> None:
    meta = json.loads((build(TEXTS, tmp_path / "m", window=4) / "config.meta.json").read_text())
    assert 1e6 < meta["parameters"] < 2e6


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--text", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "o")]) == 1
    assert main(["--text", str(tmp_path), "--out", str(tmp_path / "o"), "--window", "0"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert "none.jsonl" in errors[0]
    assert errors[1] == (
        "tiny_whisper: window is 0 s, must be a whole number of seconds, at least 1"
    )
    assert not list(tmp_path.iterdir())
