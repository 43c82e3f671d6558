"""A causal LM's ln P is that of the text alone, whatever its neighbours, length and spelling."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lm.causal import CausalLm, windows
from lm.model import CausalOptions, open_lm
from lm.ngram import NGram
from lm.rescore import main as rescore
from manifests import Hypothesis, NBest, Utterance, read_nbest, write_rows
from recipes.tiny_gpt2 import Gpt2Settings, build, main

SENTENCES = ["the cat sat on the mat", "a dog goed home", "the cat goed home", "i saw two tooths"]
TINY = Gpt2Settings(width=32, heads=2, context=24, merges=60, steps=60)
CPU = CausalOptions(device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("causal") / "gpt2"
    build(SENTENCES * 4, out, TINY)
    return out


@pytest.fixture(scope="module")
def lm(folder) -> CausalLm:
    return CausalLm(folder, CPU)


def plainly(lm: CausalLm, text: str) -> float:
    """Return ln P of a text, each token from unpadded passes over what comes before it."""
    end = lm.tokenizer.eos_token_id
    ids = [end, *lm.tokenizer(text)["input_ids"], end]
    total, context = 0.0, TINY.context
    for place in range(1, len(ids)):
        # As the windows lie: all that fits at first, then half a context and what follows it.
        later = max(0, place - context + context // 2) // (context - context // 2)
        start = later * (context - context // 2)
        with torch.inference_mode():
            chances = lm.model(torch.tensor([ids[start:place]])).logits[0, -1].double()
        total += float(chances.log_softmax(-1)[ids[place]])
    return total


def test_score_is_that_of_begin_text_and_end(lm):
    for text in (*SENTENCES, "", "zebra", "I", " ".join(SENTENCES * 5)):
        (score,) = lm.score_texts([text])
        assert score == pytest.approx(plainly(lm, text.lower()), abs=1e-4)


def test_what_was_learned_is_likelier_and_chances_of_all_first_tokens_are_one(lm):
    scores = lm.score_texts(["the cat sat on the mat", "mat the on sat cat the"])
    assert scores[0] > scores[1] + 3
    # Without bos the first word would be free: with it, ends and words share one distribution.
    with torch.inference_mode():
        first = lm.model(torch.tensor([[lm.tokenizer.eos_token_id]])).logits[0, 0].log_softmax(-1)
    assert math.exp(lm.score_texts([""])[0]) == pytest.approx(
        float(first[lm.tokenizer.eos_token_id].exp()), abs=1e-5
    )


WORDS = st.sampled_from(["the", "cat", "sat", "on", "mat", "dog", "goed", "i", "saw", "zebra"])
TEXTS = st.lists(st.lists(WORDS, max_size=40).map(" ".join), min_size=1, max_size=12)


@settings(max_examples=25)
@given(texts=TEXTS, room=st.sampled_from([1, 40, 1000]))
def test_neighbours_order_and_batch_size_change_nothing(lm, texts, room):
    """Texts longer than the context (24 tokens) are among them."""
    together = lm.score_texts(texts)
    alone = [lm.score_texts([text])[0] for text in texts]
    assert together == pytest.approx(alone, abs=1e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm.causal._LOGITS", {"cpu": room * lm.model.config.vocab_size})
        assert lm.score_texts(texts) == pytest.approx(alone, abs=1e-3)


@given(length=st.integers(2, 60), limit=st.integers(2, 20))
def test_windows_score_every_token_once_after_enough(length, limit):
    ids = list(range(length))
    scored: list[int] = []
    for part, first in windows(ids, limit):
        assert len(part) <= limit
        assert first >= min(part[first], limit // 2)
        scored += part[first:]
    assert scored == ids[1:]


def test_spelling_counts_only_when_asked_for(folder, lm):
    same = lm.score_texts(["The cat, sat on the mat!", "the cat sat on the mat", "--", ""])
    assert same[0] == same[1]
    assert same[2] == same[3]
    raw = CausalLm(folder, CausalOptions(device="cpu", text="raw"))
    spelled = raw.score_texts(["The cat, sat on the mat!", "the cat sat on the mat"])
    assert spelled[0] < spelled[1] == pytest.approx(same[1])
    # A text that spells the mark is letters, not the mark.
    (mark,) = raw.score_texts(["<|endoftext|>"])
    assert mark < 2 * same[3] - 1


def test_nothing_to_score(lm):
    assert lm.score_texts([]) == []


def changed(folder: Path, target: Path, file: str, **values: object) -> Path:
    """Return a copy of a model with some keys of a JSON file set, or without them (None)."""
    shutil.copytree(folder, target)
    content = json.loads((target / file).read_text(encoding="utf-8")) | values
    content = {key: value for key, value in content.items() if value is not None}
    (target / file).write_text(json.dumps(content), encoding="utf-8")
    return target


def test_a_tokeniser_without_bos_is_told_what_to_do(folder, tmp_path, lm):
    config = "tokenizer_config.json"
    bare = changed(
        folder, tmp_path / "bare", config, tokenizer_class="PreTrainedTokenizerFast", bos_token=None
    )
    with pytest.raises(ValueError, match=r"bare: its tokeniser has no bos token.*--begin-token"):
        CausalLm(bare, CPU)
    named = CausalLm(bare, CausalOptions(device="cpu", begin="<|endoftext|>"))
    assert named.score_texts(SENTENCES) == pytest.approx(lm.score_texts(SENTENCES), abs=1e-4)
    with pytest.raises(ValueError, match=r"knows no token '<s>'"):
        CausalLm(bare, CausalOptions(device="cpu", begin="<s>"))
    endless = changed(bare, tmp_path / "endless", config, eos_token=None, bos_token="<|endoftext|>")
    with pytest.raises(ValueError, match=r"endless: its tokeniser has no eos token"):
        CausalLm(endless, CPU)


def test_what_is_no_whole_causal_model_is_refused(folder, tmp_path):
    other = changed(folder, tmp_path / "bert", "config.json", architectures=["BertForMaskedLM"])
    with pytest.raises(ValueError, match=r"is a BertForMaskedLM, must be a causal language model"):
        CausalLm(other, CPU)
    torn = tmp_path / "torn"
    shutil.copytree(folder, torn)
    weights = load_file(torn / "model.safetensors")
    weights.pop("transformer.h.1.mlp.c_fc.weight")
    save_file(weights, torn / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"torn: 1 weights are missing \(transformer\.h\.1"):
        CausalLm(torn, CPU)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds neither lm.binary .* nor a model"):
        open_lm(tmp_path / "empty")


def test_any_model_is_opened_by_its_folder(folder, make_ngram):
    place = make_ngram(SENTENCES)
    ngram = open_lm(place)
    assert isinstance(ngram, NGram)
    assert ngram.score_texts(["The cat!", ""]) == [
        ngram.score_text("the cat"),
        ngram.score_text(""),
    ]
    assert isinstance(open_lm(place / "lm.binary"), NGram)
    assert isinstance(open_lm(str(folder), CPU), CausalLm)


def test_lists_are_rescored_with_an_ngram_and_a_causal_model_at_once(folder, tmp_path, make_ngram):
    place = make_ngram(SENTENCES)
    texts = ["mat the on sat cat the", "the cat sat on the mat", "the cat sat on"]
    hyps = tuple(Hypothesis(text=text, score=-1.0 - n) for n, text in enumerate(texts))
    write_rows(tmp_path / "h.jsonl", [NBest(utt_id="a", system="s", hyps=hyps)])
    row = Utterance(
        utt_id="a", audio_filepath="a.wav", duration=1.0, text="The cat sat on the mat."
    )
    write_rows(tmp_path / "dev.jsonl", [row])
    lists, out = str(tmp_path / "h.jsonl"), str(tmp_path / "r.jsonl")
    both = ["--lm", str(place), "--lm", str(folder), "--device", "cpu"]
    assert rescore([lists, *both, "--out", out, "--alpha", "0.5", "0.25"]) == 0
    (found,) = read_nbest(tmp_path / "r.jsonl")
    assert found.best.text == texts[1]
    ngram, causal = open_lm(place), open_lm(folder, CPU)
    (one,), (other,) = ngram.score_texts([texts[1]]), causal.score_texts([texts[1]])
    assert found.best.lm_score == pytest.approx((0.5 * one + 0.25 * other) / 0.75)
    dev = ["--tune-on", lists, "--ref", str(tmp_path / "dev.jsonl")]
    assert rescore([lists, *both, "--out", out, *dev]) == 0
    kept = json.loads((tmp_path / "r.weights.json").read_text())
    assert kept["errors"] == 0 < kept["errors_before"]
    assert len(kept["weights"]["alphas"]) == 2


def test_training_is_repeatable_and_told(folder, tmp_path, capsys):
    (tmp_path / "text").write_text("\n".join(SENTENCES * 4))
    sizes = ["--width", "32", "--heads", "2", "--context", "24", "--merges", "60", "--steps", "60"]
    text = ["--text", str(tmp_path / "text"), "--out", str(tmp_path / "again")]
    assert main([*text, "--dev", str(tmp_path / "text"), *sizes]) == 0
    again, before = (load_file(one / "model.safetensors") for one in (tmp_path / "again", folder))
    assert all(torch.equal(again[name], before[name]) for name in before)
    info = json.loads((tmp_path / "again" / "gpt2.json").read_text())
    assert info["sentences"] == 16
    assert 1 < info["perplexity"] < 10
    (tmp_path / "none").write_text("--\n")
    assert main(["--text", str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 1
    assert "tiny_gpt2: no text to learn from" in capsys.readouterr().err
