"""The CTC decoder against brute force over all paths, and every trap of pyctcdecode it closes."""

from __future__ import annotations

import itertools
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.ngram import BINARY, UNIGRAMS, NGram
from systems.ctc import CtcDecoder
from systems.ctc_config import CtcConfig
from systems.stream import Ranked

B = "\u2581"
TOKENS = ["<unk>", B, B + "a", "t", B + "t", "o", ""]
BLANK = len(TOKENS) - 1
FRAME = 0.08
WIDE = {"token_min_logp": -30.0, "beam_prune_logp": -60.0, "beams": 400}


def decoder(tokens: list[str] = TOKENS, lm: Path | None = None, **config) -> CtcDecoder:
    return CtcDecoder(
        tokens,
        tokens.index(""),
        frame_seconds=FRAME,
        config=CtcConfig(**{"processes": 1, **config}),
        lm=lm,
        ignore=[tokens.index("<unk>")] if "<unk>" in tokens else [],
    )


def decode(log_probs: torch.Tensor, **kwargs) -> list[Ranked]:
    frames = len(log_probs)
    return decoder(**kwargs).decode(log_probs[None], [frames], [frames * FRAME])[0]


def text_of(path: tuple[int, ...]) -> str:
    tokens = [TOKENS[token] for token, _ in itertools.groupby(path)]
    return " ".join("".join(tokens).replace(B, " ").split())


def brute_force(log_probs: torch.Tensor) -> dict[str, float]:
    """Return ln P of every text, from all paths that never say <unk>."""
    values = log_probs.double().tolist()
    found: dict[str, float] = {}
    for path in itertools.product(range(1, len(TOKENS)), repeat=len(values)):
        score = math.fsum(row[token] for row, token in zip(values, path, strict=True))
        text = text_of(path)
        found[text] = float(np.logaddexp(found.get(text, -math.inf), score))
    return found


def random_log_probs(seed: int, frames: int, spread: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(frames, len(TOKENS), generator=generator)
    return torch.log_softmax(logits, -1)


def peaks(*tokens: str, among: list[str] = TOKENS, sure: float = 12.0) -> torch.Tensor:
    logits = torch.zeros(len(tokens), len(among))
    for row, token in enumerate(tokens):
        logits[row, among.index(token)] = sure
    return torch.log_softmax(logits, -1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from([1.0, 3.0, 6.0]))
def test_beam_search_is_brute_force(seed: int, frames: int, spread: float) -> None:
    """Also where a bare boundary or <unk> is likely: pyctcdecode alone is right in 70 %."""
    log_probs = random_log_probs(seed, frames, spread)
    exact = brute_force(log_probs)
    heard = decode(log_probs, nbest=400, **WIDE)
    greedy = decode(log_probs, method="greedy")[0].hypothesis.text
    if not greedy:
        assert [one.hypothesis.text for one in heard] == [""]
        return
    texts = [one.hypothesis.text for one in heard]
    assert len(set(texts)) == len(texts)
    assert exact[texts[0]] == pytest.approx(max(exact.values()), abs=1e-2)
    for one in heard[:5]:
        # The wide search sees nearly every alignment: its score is the probability.
        assert one.hypothesis.score == pytest.approx(exact[one.hypothesis.text], abs=2e-2)
        assert one.hypothesis.score < exact[one.hypothesis.text] + 2e-3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_frames_of_blanks_and_unlikely_tokens_change_nothing(seed: int, frames: int) -> None:
    """The same as pyctcdecode on the whole matrix."""
    from pyctcdecode.alphabet import Alphabet
    from pyctcdecode.decoder import BeamSearchDecoderCTC

    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(frames, len(TOKENS), generator=generator)
    logits[torch.rand(frames, generator=generator) < 0.6, BLANK] += 20
    logits[:, :2] = -100  # <unk> and the bare boundary: its traps
    log_probs = torch.log_softmax(logits, -1)
    plain = BeamSearchDecoderCTC(Alphabet(TOKENS, True))
    found = plain.decode_beams(log_probs.numpy().astype(np.float64), beam_width=50)
    plain.cleanup()
    heard = decode(log_probs)
    if decode(log_probs, method="greedy")[0].hypothesis.text:
        assert [one.hypothesis.text for one in heard] == [one[0] for one in found][:5]
        for one, (_, _, _, score, _) in zip(heard, found, strict=False):
            assert one.hypothesis.score == pytest.approx(score, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from([1.0, 3.0]))
def test_word_times_are_those_of_the_likeliest_alignment(
    seed: int, frames: int, spread: float
) -> None:
    log_probs = random_log_probs(seed, frames, spread)
    values = log_probs.double().tolist()
    best: dict[str, tuple[float, tuple[int, ...]]] = {}
    for path in itertools.product(range(1, len(TOKENS)), repeat=frames):
        score = math.fsum(row[token] for row, token in zip(values, path, strict=True))
        best[text_of(path)] = max(best.get(text_of(path), (-math.inf, path)), (score, path))
    for one in decode(log_probs, **WIDE):
        if one.hypothesis.text:
            spans = spans_of(best[one.hypothesis.text][1])
            words = one.hypothesis.words or ()
            assert [(word.start, word.end) for word in words] == [
                (pytest.approx(first * FRAME), pytest.approx(end * FRAME)) for first, end in spans
            ]


def spans_of(path: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the frames of each word: from its first letter to its last."""
    spans: list[tuple[int, int]] = []
    last, broken = BLANK, True
    for at, token in enumerate(path):
        if token != BLANK:
            if token != last:
                broken = broken or TOKENS[token].startswith(B)
            if TOKENS[token] != B:
                spans = [*spans, (at, at + 1)] if broken else [*spans[:-1], (spans[-1][0], at + 1)]
                broken = False
        last = token
    return spans


def test_a_word_begins_with_its_first_letter() -> None:
    heard = decode(peaks("", B, "", "t", "o", B + "a"))
    assert [(word.text, word.start, word.end) for word in heard[0].hypothesis.words or ()] == [
        ("to", 0.24, 0.4),
        ("a", 0.4, 0.48),
    ]


def test_a_likely_boundary_does_not_tear_words_of_other_beams() -> None:
    tokens = ["<unk>", B, B + "the", B + "c", "a", "t", ""]
    log_probs = peaks(B + "the", B + "c", "a", "t", among=tokens)
    log_probs[3] = torch.log(torch.tensor([1e-9, 0.09, 1e-9, 1e-9, 1e-9, 0.9, 0.01]))
    assert decode(log_probs, tokens=tokens)[0].hypothesis.text == "the cat"


def test_unknown_is_never_heard() -> None:
    heard = decode(peaks("", "<unk>", B + "a", "<unk>", ""))
    assert heard[0].hypothesis.text == "a"
    assert "\u2047" not in "".join(one.hypothesis.text for one in heard)


def test_scores_of_greedy_and_beam_are_on_one_scale() -> None:
    log_probs = random_log_probs(3, 6, 6.0)
    greedy, beam = decode(log_probs, method="greedy")[0], decode(log_probs, **WIDE)
    same = next(one for one in beam if one.hypothesis.text == greedy.hypothesis.text)
    # Of one spelling in tokens, and of all of them.
    assert same.hypothesis.score - 1 < greedy.hypothesis.score < same.hypothesis.score + 1e-3
    assert greedy.hypothesis.lm_score is None


def test_word_times_and_characters() -> None:
    tokens = ["a", "b", " ", ""]
    log_probs = peaks("", "a", "a", "", "b", " ", " ", "b", "", among=tokens)
    for method in ("greedy", "beam"):
        best = decode(log_probs, tokens=tokens, method=method)[0].hypothesis
        assert best.text == "ab b"
        assert [(word.text, word.start, word.end) for word in best.words or ()] == [
            ("ab", 0.08, 0.4),
            ("b", 0.56, 0.64),
        ]
        assert all(word.confidence > 0.9 for word in best.words or ())


def test_times_end_with_the_audio() -> None:
    heard = decoder().decode(peaks("", B + "a")[None], [2], [0.1])[0][0].hypothesis
    assert [(word.start, word.end) for word in heard.words or ()] == [(0.08, 0.1)]


def test_a_padded_batch_gives_what_each_gives_alone() -> None:
    one, two = random_log_probs(1, 9, 5.0), random_log_probs(2, 5, 5.0)
    padded = torch.full((2, 9, len(TOKENS)), math.log(1 / len(TOKENS)))
    padded[0], padded[1, :5] = one, two
    for method in ("greedy", "beam"):
        search = decoder(method=method)
        both = search.decode(padded, [9, 5], [0.72, 0.4])
        assert both == [
            search.decode(one[None], [9], [0.72])[0],
            search.decode(two[None], [5], [0.4])[0],
        ]


@pytest.mark.parametrize("best", ["", B + "a", "t"])
def test_the_best_of_a_frame_is_tried_however_unlikely(best: str) -> None:
    """With a large vocabulary every token may be less likely than the limit."""
    tokens = [*TOKENS[:-1], *(f"{B}x{n}" for n in range(400)), ""]
    log_probs = peaks(B + "t", "o", best, among=tokens)
    log_probs[2] = torch.log_softmax(torch.zeros(len(tokens)).index_fill_(
        0, torch.tensor([tokens.index(best)]), 0.1), -1)  # fmt: skip
    assert log_probs[2].max() < CtcConfig().token_min_logp
    heard = decode(log_probs, tokens=tokens)
    assert heard[0].hypothesis.text == {"": "to", B + "a": "to a", "t": "tot"}[best]


def test_no_frames_are_silence() -> None:
    heard = decoder().decode(torch.zeros(1, 0, len(TOKENS)), [0], [0.1])[0]
    assert [one.hypothesis.text for one in heard] == [""]


ARPA = """\\data\\
ngram 1=5
ngram 2=4

\\1-grams:
-2.0\t<unk>
-99\t<s>\t-0.3
-0.8\t</s>
-0.6\tto\t-0.3
-0.6\ta\t-0.3

\\2-grams:
-0.4\t<s> to
-0.3\tto a
-0.3\ta </s>
-0.9\ta to

\\end\\
"""


@pytest.fixture(scope="module")
def ngram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    (folder / BINARY).write_text(ARPA, encoding="utf-8")
    (folder / UNIGRAMS).write_text("to\na\n", encoding="utf-8")
    return folder


def test_silence_stays_silent_with_an_ngram(ngram: Path) -> None:
    """pyctcdecode charges an empty text for an unknown word, so that any word beats it."""
    frame = torch.log(torch.tensor([1e-9, 1e-9, 0.03, 1e-9, 1e-9, 1e-9, 0.97]))
    assert decode(frame.repeat(4, 1), lm=ngram)[0].hypothesis.text == ""


def test_ngram_scores_are_apart_and_decide_the_order(ngram: Path) -> None:
    log_probs = peaks("", B + "t", "o", "", B + "a", "")
    log_probs[2] = torch.log(torch.tensor([1e-9, 1e-9, 1e-9, 0.52, 1e-9, 0.47, 0.01]))
    without, with_lm = decode(log_probs), decode(log_probs, lm=ngram)
    assert without[0].hypothesis.text == "tt a"
    assert with_lm[0].hypothesis.text == "to a"
    model = NGram(ngram)
    config = CtcConfig()
    for one in with_lm:
        text, words = one.hypothesis.text, one.hypothesis.text.split()
        unknown = sum(not model.in_vocabulary(word) for word in words)
        lm_score = model.score_text(text) + unknown * config.oov_penalty
        assert one.hypothesis.lm_score == pytest.approx(lm_score, abs=1e-3)
        rank = (one.hypothesis.score or 0) + config.alpha * lm_score + config.beta * len(words)
        assert one.rank == pytest.approx(rank, abs=1e-2)
    acoustic = {one.hypothesis.text: one.hypothesis.score for one in without}
    assert with_lm[0].hypothesis.score == pytest.approx(acoustic["to a"], abs=1e-3)


def test_hotwords() -> None:
    log_probs = peaks("", B + "t", "o", "", B + "a", "")
    log_probs[2] = torch.log(torch.tensor([1e-9, 1e-9, 1e-9, 0.6, 1e-9, 0.39, 0.01]))
    assert decode(log_probs)[0].hypothesis.text == "tt a"
    assert decode(log_probs, hotwords=("to",))[0].hypothesis.text == "to a"


def test_processes_find_the_same(ngram: Path) -> None:
    batch = torch.stack([random_log_probs(seed, 12, 4.0) for seed in range(12)])
    frames, seconds = [12] * 12, [0.96] * 12
    alone = decoder(lm=ngram).decode(batch, frames, seconds)
    with decoder(lm=ngram, processes=2) as beside:
        assert beside.decode(batch, frames, seconds) == alone
        # One that dies, of memory say, costs nobody a result.
        assert beside._pool is not None
        os.kill(next(iter(beside._pool._processes)), signal.SIGKILL)
        assert beside.decode(batch, frames, seconds) == alone
        assert beside.decode(batch, frames, seconds) == alone


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="nbest is 9, must lie between 1 and beams"):
        decoder(nbest=9, beams=4)
    with pytest.raises(ValueError, match="must be 'beam' with an n-gram or hotwords"):
        decoder(method="greedy", hotwords=("to",))
