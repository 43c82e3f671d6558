"""Of all ways through a network the best are found, and language models only help on dev."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm import NGram
from lm.network import best_ways, rescore_networks, tune_networks
from lm.ngram import words_of
from lm.weights import Weights, word_errors
from manifests import Arc, WordNetwork

SENTENCES = ["the cat sat on the mat", "the dog sat on the cat", "a dog goed home", "i saw a cat"]


@pytest.fixture(scope="module")
def folder(make_ngram):
    return make_ngram(SENTENCES)


@pytest.fixture(scope="module")
def ngram(folder):
    return NGram(folder)


def network(utt_id, *slots):
    """Make a network of slots, each {text: share}."""
    arcs = tuple(tuple(Arc(text=t, share=s) for t, s in slot.items()) for slot in slots)
    return WordNetwork(utt_id=utt_id, system="rover", slots=arcs)


TEXTS = st.sampled_from(["", "the", "cat", "sat", "dog", "Dog,", "on the", "--", "zebra", "goed"])
SLOTS = st.lists(
    st.dictionaries(TEXTS, st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.65]), min_size=1, max_size=3),
    max_size=5,
)


@settings(max_examples=150)
@given(
    slots=SLOTS,
    count=st.integers(1, 6),
    alpha=st.sampled_from([0.0, 0.3, 1.2]),
    beta=st.sampled_from([-1.0, 0.0, 0.75]),
)
def test_the_best_of_all_ways_are_found(ngram, slots, count, alpha, beta):
    totals: dict[str, float] = {}
    votes: dict[str, float] = {}
    for way in product(*(slot.items() for slot in slots)):
        text = " ".join(t for t, _ in way if t)
        vote = sum(math.log(max(share, 5e-7)) for _, share in way)
        votes[text] = max(vote, votes.get(text, -math.inf))
        total = vote + beta * sum(len(words_of(t)) for t, _ in way)
        total += alpha * ngram.score_text(text) if alpha else 0.0
        totals[text] = max(total, totals.get(text, -math.inf))
    found = best_ways(network("a", *slots), count, ngram, alpha=alpha, beta=beta)
    best = sorted(totals.values(), reverse=True)[:count]
    assert [totals[hyp.text] for hyp in found] == pytest.approx(best)
    assert [hyp.score for hyp in found] == pytest.approx([votes[hyp.text] for hyp in found])
    assert len({hyp.text for hyp in found}) == len(found) == min(count, len(totals))
    for hyp in found:
        assert [word.text for word in hyp.words] == hyp.text.split()


def test_by_votes_the_first_arcs_win_and_confidences_are_their_shares():
    tied = network("a", {"The": 0.5, "A": 0.5}, {"": 0.6, "cat": 0.4}, {"sat": 1.0})
    (best,) = best_ways(tied)
    assert best.text == "The sat"
    assert [(word.text, word.confidence) for word in best.words] == [("The", 0.5), ("sat", 1.0)]
    assert best.score == pytest.approx(math.log(0.5 * 0.6))
    assert [hyp.text for hyp in best_ways(network("b"), 3)] == [""]


# Votes are led astray; the n-gram knows how children's stories go.
ASTRAY = [
    network("a", {"The": 1.0}, {"cap": 0.6, "cat": 0.4}, {"sat": 1.0}, {"on": 1.0}, {"the": 1.0},
            {"mad": 0.5, "mat": 0.4, "": 0.1}),
    network("b", {"a": 1.0}, {"dog": 0.7, "dock": 0.3}, {"goed": 0.5, "code": 0.5}, {"home": 1.0}),
    network("c", {"": 0.5, "i": 0.4}, {"saw": 1.0}, {"a": 0.5, "": 0.5}, {"cat": 1.0}),
    network("d"),
]  # fmt: skip
REFERENCES = {"a": "the cat sat on the mat", "b": "a dog goed home", "c": "I saw a cat.", "d": ""}


def test_tuned_networks_are_repaired(ngram):
    tuned = tune_networks(ASTRAY, REFERENCES, [ngram], 3)
    assert (tuned.errors_before, tuned.errors, tuned.words) == (3, 0, 14)
    found = list(rescore_networks(ASTRAY, [ngram], tuned.weights, 3))
    assert [row.best.text for row in found] == [
        "The cat sat on the mat", "a dog goed home", "i saw a cat", "",
    ]  # fmt: skip
    assert found[0].best.lm_score == ngram.score_text("the cat sat on the mat")
    neutral = list(rescore_networks(ASTRAY, [ngram], Weights(), 3))
    assert [row.best.text for row in neutral] == [best_ways(one)[0].text for one in ASTRAY]


class Contrary:
    """A judge who likes what is wrong: long texts without any word of the references."""

    def score_texts(self, texts):
        wanted = set(words_of(" ".join(REFERENCES.values())))
        return [-9.0 * len(wanted & set(words_of(text))) for text in texts]


@pytest.mark.parametrize("ways", [1, 2, 30])
def test_dev_never_gets_worse_and_what_is_said_of_it_is_true(ngram, ways):
    for lms in ([Contrary()], [ngram], [Contrary(), ngram]):
        tuned = tune_networks(ASTRAY, REFERENCES, lms, ways)
        assert tuned.errors <= tuned.errors_before == 3
        rows = rescore_networks(ASTRAY, lms, tuned.weights, ways)
        assert sum(word_errors(REFERENCES[r.utt_id], r.best.text) for r in rows) == tuned.errors
        if not isinstance(lms[-1], NGram):
            assert tuned.weights.alphas == (0.0,)
