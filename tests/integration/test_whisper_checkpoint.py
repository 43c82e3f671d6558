"""Loading Whisper: folders, the hub's cache, adapters whose base moved; labels; the window."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from manifests.device import pick_device, pick_precision
from manifests.rows import Utterance
from systems.hf_trainer import last_checkpoint
from systems.record import write_record
from systems.whisper.checkpoint import load_model, quiet_peft
from systems.whisper.data import Tokens
from systems.whisper.generation import no_speech_token, prompt_tokens
from systems.whisper.window import shorten, window_of


@pytest.fixture(scope="module")
def loaded(tiny_whisper):
    return load_model(tiny_whisper)


def features(processor, seconds: float = 1.0) -> torch.Tensor:
    audio = np.sin(np.arange(int(16000 * seconds)) * 0.1).astype(np.float32)
    return processor(audio, sampling_rate=16000, return_tensors="pt").input_features


def row(text: str | None, **fields: object) -> Utterance:
    return Utterance(utt_id="u", audio_filepath="a.wav", duration=1.0, text=text, **fields)


# Loading


def as_cached(folder: Path, cache: Path, hub_id: str) -> None:
    """Lay a model out as huggingface_hub keeps its downloads."""
    repo = cache / f"models--{hub_id.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0123abcd")
    shutil.copytree(folder, repo / "snapshots" / "0123abcd")


def test_a_hub_id_loads_from_the_cache_without_a_network(tiny_whisper, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    as_cached(tiny_whisper, tmp_path, "someone/whisper-mini")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model, processor = load_model("someone/whisper-mini")
    theirs = load_model(tiny_whisper)[0].state_dict()
    assert all(torch.equal(theirs[name], weight) for name, weight in model.state_dict().items())
    assert prompt_tokens(model.generation_config, "en") == processor.tokenizer.prefix_tokens


def test_a_missing_model_says_what_to_download_and_where_to_put_it(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"hf download openai/whisper-no --local-dir whisper-no"):
        load_model("openai/whisper-no")
    with pytest.raises(ValueError, match="no such folder"):
        load_model(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        load_model(tmp_path / "empty")


def adapter(base: Path, final: Path) -> Path:
    """Write a random adapter of ``base`` as training does."""
    from peft import LoraConfig, get_peft_model

    model, processor = load_model(base)
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    with quiet_peft():
        get_peft_model(model, config).save_pretrained(final)
    processor.save_pretrained(final)
    model.generation_config.save_pretrained(final)
    write_record(final, "whisper", str(base), {}, final, window_of(model))
    return final


def test_an_adapter_finds_its_base_after_both_moved(tiny_whisper, tmp_path, monkeypatch):
    base = shutil.copytree(tiny_whisper, tmp_path / "exp" / "base")
    final = adapter(base, tmp_path / "exp" / "lora" / "final")
    wanted = load_model(final)[0].model.decoder.layers[0].self_attn.q_proj.weight
    plain = load_model(base)[0].model.decoder.layers[0].self_attn.q_proj.weight
    assert not torch.equal(wanted, plain)
    moved = (tmp_path / "exp").rename(tmp_path / "elsewhere")
    monkeypatch.chdir("/")
    found = load_model(moved / "lora" / "final")[0]
    assert torch.equal(found.model.decoder.layers[0].self_attn.q_proj.weight, wanted)
    # Alone, it says what is missing, and takes the base it is given.
    away = (moved / "base").rename(tmp_path / "away")
    with pytest.raises(ValueError, match=r"base is neither at .* must be put there or named"):
        load_model(moved / "lora" / "final")
    found = load_model(moved / "lora" / "final", base=away)[0]
    assert torch.equal(found.model.decoder.layers[0].self_attn.q_proj.weight, wanted)


def test_an_adapter_of_an_adapter(tiny_whisper, tmp_path):
    first = adapter(tiny_whisper, tmp_path / "first")
    second = adapter(first, tmp_path / "second")
    weights = [
        load_model(folder)[0].model.encoder.layers[0].self_attn.q_proj.weight
        for folder in (tiny_whisper, first, second)
    ]
    torch.testing.assert_close(weights[2] - weights[1], weights[1] - weights[0])


def test_another_architecture_is_refused(tiny_whisper, tmp_path):
    other = shutil.copytree(tiny_whisper, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "wav2vec2"}))
    with pytest.raises(ValueError, match="model_type is 'wav2vec2', must be 'whisper'"):
        load_model(other)


# Labels


def test_labels_are_whispers_own(loaded):
    model, processor = loaded
    tokens = Tokens(processor, model.generation_config, 448)
    inputs, targets = tokens(row(" I goed home"))
    whole = processor.tokenizer(" I goed home").input_ids
    assert inputs == whole[:-1]
    assert targets == whole[1:]
    assert targets[-1] == model.config.eos_token_id
    assert processor.tokenizer.decode(targets, skip_special_tokens=True) == " I goed home"


def test_silence_teaches_no_speech_and_an_immediate_end(loaded):
    model, processor = loaded
    inputs, targets = Tokens(processor, model.generation_config, 448)(row("  "))
    assert inputs == prompt_tokens(model.generation_config, "en")
    assert targets[0] == no_speech_token(model.generation_config)
    assert targets[-1] == model.config.eos_token_id
    token = processor.tokenizer.convert_ids_to_tokens(targets[0])
    assert token in ("<|nospeech|>", "<|nocaptions|>")


def test_normalized_text_is_an_option(loaded):
    model, processor = loaded
    raw = Tokens(processor, model.generation_config, 448)(row("I goed home"))
    plain = Tokens(processor, model.generation_config, 448, "normalized")(row("i goed home"))
    loud = Tokens(processor, model.generation_config, 448, "normalized")(row("I goed, home!"))
    assert loud == plain != raw


@given(st.text(max_size=60), st.sampled_from(["raw", "normalized"]))
@example("00\x80" + 4 * "\U00010000", "raw")  # a token to each byte, and one for the space
def test_any_text_fits_or_is_called_too_long(loaded, text, kind):
    model, processor = loaded
    tokens = Tokens(processor, model.generation_config, 24, kind)
    if tokens.are_too_many(row(text)):
        with pytest.raises(ValueError, match="must be at most 24"):
            tokens(row(text))
    else:
        inputs, targets = tokens(row(text))
        assert len(inputs) == len(targets) <= 24


def test_prompts_by_language_and_for_english_only(loaded):
    generation = copy.deepcopy(loaded[0].generation_config)
    german = prompt_tokens(generation, "de")
    assert german[1] == generation.lang_to_id["<|de|>"]
    # A manifest may name its language as decoding may.
    assert prompt_tokens(generation, "German") == prompt_tokens(generation, "de-AT") == german
    with pytest.raises(ValueError, match="language is 'tlh', must be one of: af am"):
        prompt_tokens(generation, "tlh")
    generation.is_multilingual = False
    assert prompt_tokens(generation, "en") == [german[0], german[3]]
    assert prompt_tokens(generation, "en-GB") == [german[0], german[3]]
    with pytest.raises(ValueError, match="cannot transcribe 'de', an English-only model"):
        prompt_tokens(generation, "de")


# The window


def test_the_full_window_is_the_unmodified_model(tiny_whisper):
    from transformers import WhisperForConditionalGeneration

    plain = WhisperForConditionalGeneration.from_pretrained(tiny_whisper).eval()
    model, processor = load_model(tiny_whisper, window=2)
    inputs = features(processor)
    with torch.no_grad():
        theirs = plain.model.encoder(inputs).last_hidden_state
        assert torch.equal(model.model.encoder(inputs).last_hidden_state, theirs)
        shorten(model, processor, 0.5)
        shorten(model, processor, None)  # back and forth leaves no trace
        assert torch.equal(model.model.encoder(inputs).last_hidden_state, theirs)


@pytest.mark.parametrize(("seconds", "positions"), [(0.5, 25), (1.23, 62), (0.14, 7), (2, 100)])
def test_a_shorter_window_keeps_the_first_rows(loaded, seconds, positions):
    model, processor = loaded
    shorten(model, processor, None)
    table = model.model.encoder.embed_positions.weight.clone()
    assert shorten(model, processor, seconds) == positions / 50
    rows = model.model.encoder.embed_positions.weight
    assert torch.equal(rows, table[:positions])
    inputs = features(processor, 3)  # longer audio is cut
    assert inputs.shape[-1] == 2 * positions
    assert model.model.encoder(inputs).last_hidden_state.shape[1] == positions
    assert not rows.requires_grad
    assert shorten(model, processor, None) == 2  # the whole table is still there
    assert sum("position" in name for name in model.state_dict()) == 2


def test_cutting_costs_no_copy(loaded):
    model, processor = loaded
    shorten(model, processor, None)
    pointer = model.model.encoder.embed_positions.weight.data_ptr()
    shorten(model, processor, 1)
    assert model.model.encoder.embed_positions.weight.data_ptr() == pointer


@pytest.mark.parametrize("seconds", [0, -1, 2.1, 30])
def test_an_impossible_window_is_refused(loaded, seconds):
    with pytest.raises(ValueError, match="must be > 0 and at most 2 s"):
        shorten(*loaded, seconds)


def test_a_cut_model_saves_and_loads_even_at_a_fraction_of_a_second(tiny_whisper, tmp_path):
    model, processor = load_model(tiny_whisper, window=1.5)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, theirs = load_model(tmp_path)
    assert window_of(again) == shorten(again, theirs, None) == 1.5
    inputs = features(theirs)
    assert inputs.shape[-1] == 150
    wanted = model.model.encoder(inputs).last_hidden_state
    assert torch.equal(again.model.encoder(inputs).last_hidden_state, wanted)


# Small parts


def test_device_and_precision():
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cuda", "mps", "cpu")
    with pytest.raises(ValueError, match="must be one of: auto, cuda, mps, cpu"):
        pick_device("tpu")
    assert pick_precision("auto", "cpu") == pick_precision("auto", "mps") == "fp32"
    assert pick_precision("bf16", "cpu") == "bf16"
    with pytest.raises(ValueError, match="must be fp32 or bf16 on a CPU"):
        pick_precision("fp16", "cpu")


def test_a_torn_checkpoint_is_not_resumed_from(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step, state in ((9, '{"global_step": 9}'), (10, '{"global'), (11, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
