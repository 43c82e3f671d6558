"""The prefix search against pyctcdecode, whose algorithm it is, with pyctcdecode's flaws mended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.mended_pyctcdecode import decode_beams
from systems.ctc_beam import Job, likely
from systems.ctc_config import CtcConfig
from systems.ctc_scorer import WordScorer
from systems.ctc_search import Found, PrefixSearch

B = "\u2581"
PIECES = [B, B + "a", "t", B + "t", "o", B + "to", "s", B + "cat", "c", B + "goed", "oed", B + "g"]
LETTERS = ["a", "t", " ", "o", "c", "g", "e", "d", "s"]
TEXTS = ["a cat goed to a cat", "cats goed", "to to a", "a dog goed", "oats to a goat"]


@pytest.fixture(scope="module")
def ngram(make_ngram: Callable[[Sequence[str]], Path]) -> Path:
    return make_ngram(TEXTS * 3)


def random_scores(seed: int, frames: int, size: int, spread: float) -> np.ndarray:
    """Return log-probabilities, (frames, size + 1), the blank last; blanks are frequent."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.standard_normal((frames, size + 1))
    logits[rng.random(frames) < 0.3, size] += 10
    logits -= logits.max(axis=1, keepdims=True)
    found: np.ndarray = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return found


def ours(scores: np.ndarray, tokens: list[str], config: CtcConfig, lm: Path | None) -> list[Found]:
    job = Job(
        log_probs=scores[:, :-1],
        blanks=scores[:, -1],
        tokens=np.arange(len(tokens)),
        frames=np.arange(len(scores)),
        confidence=np.ones(len(scores), np.float32),
        left_out=0.0,
    )
    scorer = WordScorer(config, lm)
    subwords = tokens is PIECES
    search = PrefixSearch(
        tokens, subwords, scorer, beams=config.beams, prune=config.beam_prune_logp
    )
    return search(likely(job, config.token_min_logp))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    frames=st.integers(1, 25),
    spread=st.sampled_from([1.0, 2.5, 4.0]),
    pieces=st.booleans(),
    with_lm=st.booleans(),
    hotwords=st.sampled_from([(), ("to", "goats"), ("a cat",)]),
    beams=st.sampled_from([3, 20, 50]),
)
def test_a_search_is_pyctcdecodes(
    ngram: Path,
    seed: int,
    frames: int,
    spread: float,
    pieces: bool,
    with_lm: bool,
    hotwords: tuple[str, ...],
    beams: int,
) -> None:
    tokens = PIECES if pieces else LETTERS
    config = CtcConfig(beams=beams, nbest=1, hotwords=hotwords, alpha=0.7, beta=0.4)
    lm = ngram if with_lm else None
    scores = random_scores(seed, frames, len(tokens), spread)
    expected = decode_beams(scores, [*tokens, ""], config, lm=lm)
    found = ours(scores, tokens, config, lm)
    best = expected[0]
    assert " ".join(found[0].words) == best[0]
    assert found[0].score == pytest.approx(best[3], abs=1e-3)
    assert found[0].rank == pytest.approx(best[4], abs=1e-3)
    by_text = {one[0]: one for one in expected[:5]}
    ranks = {" ".join(one.words): one.rank for one in found}
    for text, one in by_text.items():
        assert ranks[text] == pytest.approx(one[4], abs=1e-2)
