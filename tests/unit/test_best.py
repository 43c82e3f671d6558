"""The best way of whole batches: what is said for each utterance when one looks at it alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusion.pool import Ballot, read_pool
from fusion.rover import rover
from fusion.voting.best import rounded
from fusion.voting.combine import fuse
from fusion.voting.vote import VoteOptions
from manifests import Hypothesis, NBest, Word, read_nbest, write_rows

WORDS = (
    "a I the The dog dogs. don't don\u2019t do not um one two twenty 21 half colour color been "
    "he's \u00c9t\u00e9 mister mr"
)
TEXTS = st.lists(st.sampled_from(WORDS.split()), max_size=6).map(" ".join) | st.sampled_from(
    ["", " he's  been", "one\ttwo"]
)
TIMES = st.none() | st.sampled_from([0.1, 0.12, 0.125, 1.00005, 1.00015, 2.5])


@st.composite
def hypotheses(draw: st.DrawFn) -> Hypothesis:
    text = draw(TEXTS)
    if draw(st.booleans()):
        return Hypothesis(text=text)
    words = [
        Word(text=word, start=start, end=start, confidence=draw(st.none() | st.floats(0, 1)))
        for word in text.split()
        for start in [draw(TIMES)]
    ]
    return Hypothesis(text=text, words=tuple(words[draw(st.sampled_from([0, 0, 0, 1])) :]))


ROWS = st.none() | st.builds(
    lambda hyps: NBest(utt_id="u", system="s", hyps=tuple(hyps)),
    st.lists(hypotheses(), min_size=1, max_size=2),
)
FAILED = NBest(utt_id="u", system="s", hyps=(Hypothesis(text=""),), error="damaged")
OPTIONS = st.builds(
    VoteOptions,
    space=st.sampled_from(["scorer", "words"]),
    alpha=st.sampled_from([1.0, 0.5, 0.0]),
    null_confidence=st.sampled_from([None, 0.3]),
    agreement=st.sampled_from([0, 1, 8]),
    spelling=st.sampled_from([0.0, 0.5]),
    nbest=st.integers(1, 2),
    weights=st.sampled_from([None, (1.0, 0.3, 0.7, 0.0)]),
)
BALLOTS = st.lists(st.tuples(*[ROWS | st.just(FAILED)] * 4), min_size=1, max_size=4)


@settings(max_examples=120, deadline=None)
@given(BALLOTS, OPTIONS)
def test_a_batch_says_what_its_networks_say(
    rows: list[tuple[NBest | None, ...]], options: VoteOptions
) -> None:
    ballots = [Ballot(f"u{n}", row) for n, row in enumerate(rows)]
    fast = [one.row for one in fuse(ballots, options)]
    assert fast == [one.row for one in fuse(ballots, options, networks=True)]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(BALLOTS, OPTIONS)
def test_files_say_what_their_rows_say(
    tmp_path: Path, rows: list[tuple[NBest | None, ...]], options: VoteOptions
) -> None:
    paths = [tmp_path / f"m{n}.jsonl" for n in range(4)]
    for path, own in zip(paths, zip(*rows, strict=True), strict=True):
        write_rows(
            path,
            [
                NBest(utt_id=f"u{n}", system="s", hyps=row.hyps, error=row.error)
                for n, row in enumerate(own)
                if row is not None
            ],
        )
    rover(paths, tmp_path / "out.jsonl", options, jobs=1)
    assert list(read_nbest(tmp_path / "out.jsonl")) == [
        one.row for one in fuse(read_pool(paths), options)
    ]


@given(st.lists(st.floats(0, 1e6) | st.integers(0, 10**6).map(lambda n: n / 20000 + 5e-5)))
def test_numbers_are_rounded_as_python_rounds(values: list[float]) -> None:
    assert rounded(np.array(values), 4).tolist() == [round(value, 4) for value in values]


@pytest.mark.parametrize("value", [0.5 / 10**4, 1.5 / 10**4, 2.00005, 1e15 + 0.3, 0.0])
def test_halves_and_large_numbers_too(value: float) -> None:
    assert rounded(np.array([value]), 4).tolist() == [round(value, 4)]
