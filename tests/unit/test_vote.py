"""The default mode from ballots to rows: whoever is named first, whatever is missing."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.pool import Ballot
from fusion.voting.combine import fuse, learned, listen, posteriors
from fusion.voting.hearings import Heard, heard_hypotheses
from fusion.voting.network import build_networks
from fusion.voting.tokens import scored
from fusion.voting.trust import UNIT, Trust
from fusion.voting.vote import VoteOptions, cast_votes
from lm import NGram
from manifests import Hypothesis, NBest, Word, write_rows

WORDS = st.sampled_from(
    [
        "a",
        "I",
        "the",
        "The",
        "dog",
        "dogs",
        "don't",
        "do",
        "not",
        "one",
        "two",
        "21",
        "\u00c9t\u00e9",
    ]
)
TEXTS = st.lists(WORDS, max_size=6).map(" ".join)


def hyp(text, confidences=None, score=None):
    given = confidences or [None] * len(text.split())
    words = tuple(
        Word(text=w, start=float(n), end=n + 0.5, confidence=c)
        for n, (w, c) in enumerate(zip(text.split(), given, strict=True))
    )
    return Hypothesis(text=text, score=score, words=words)


def ballot(*rows, utt_id="u"):
    """Return a ballot of texts, hypotheses, lists of hypotheses, or None for a missing row."""
    made = []
    for row in rows:
        hyps = row if isinstance(row, list) else [row]
        hyps = [hyp(one) if isinstance(one, str) else one for one in hyps]
        made.append(None if row is None else NBest(utt_id=utt_id, system="s", hyps=tuple(hyps)))
    return Ballot(utt_id, tuple(made))


def text(*rows, ngram=None, **options):
    (fused,) = fuse([ballot(*rows)], VoteOptions(**options), ngram=ngram)
    return fused.row.best.text


@st.composite
def _hypotheses(draw):
    said = draw(TEXTS)
    sure = st.floats(0, 1)
    confidences = draw(st.none() | st.lists(sure, min_size=9, max_size=9))
    return hyp(
        said, confidences[: len(said.split())] if confidences else None, draw(st.floats(-9, 0))
    )


ROWS = st.none() | st.lists(_hypotheses(), min_size=1, max_size=2)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(ROWS, min_size=1, max_size=6),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 6),
    st.sampled_from([0.0, 0.25]),
    st.randoms(),
)
def test_the_order_of_the_members_does_not_matter(rows, alpha, agreement, step, shuffler):
    weights = [1.0 + n * step for n in range(len(rows))]
    order = list(range(len(rows)))
    shuffler.shuffle(order)
    one = VoteOptions(alpha=alpha, agreement=agreement, nbest=2, weights=tuple(weights))
    other = VoteOptions(
        alpha=alpha, agreement=agreement, nbest=2, weights=tuple(weights[n] for n in order)
    )
    plain = list(fuse([ballot(*rows)], one, hyps=3, networks=True))
    mixed = list(fuse([ballot(*(rows[n] for n in order))], other, hyps=3, networks=True))
    assert plain == mixed


@pytest.mark.parametrize(
    "texts",
    [("cat dog", "dog cat"), ("a b c", "c b a", "b a c"), ("sun", "cat dog", "cow", "dog cat")],
)
def test_equally_near_voters_are_ordered_by_what_they_wrote(texts):
    made = {text(*order) for order in itertools.permutations(texts)}
    assert len(made) == 1


@given(st.lists(st.lists(TEXTS, min_size=3, max_size=3), min_size=1, max_size=5))
def test_ballots_do_not_touch_each_other_but_for_whom_they_trust(texts):
    ballots = [ballot(*rows, utt_id=f"u{n}") for n, rows in enumerate(texts)]
    heard = heard_hypotheses([listen(one, VoteOptions()) for one in ballots], "scorer")
    trust = learned(heard, 3, VoteOptions())
    together = list(fuse(ballots, networks=True))
    assert [fused.row.utt_id for fused in together] == [one.utt_id for one in ballots]
    alone = [fused for one in ballots for fused in fuse([one], networks=True, trust=trust)]
    assert together == alone


@given(TEXTS, st.integers(1, 4))
def test_what_all_say_comes_out_as_they_wrote_it(said, members):
    assert text(*[said] * members) == said


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_a_transcript_is_scored_as_was_voted(texts):
    (fused,) = fuse([ballot(*texts)], networks=True)
    voted = [slot[0].text for slot in fused.network.slots]
    said = scored(fused.row.best.text, "scorer")
    # "one" and "two" in slots of their own: there is no text that is scored as "1 2".
    unless_joined = [key for one in voted for key in scored(one, "scorer").split()]
    assert said.split() == unless_joined or any(key in voted for key in ("one", "two", "21"))


def test_words_that_are_scored_alike_vote_together():
    assert text("one two three dogs", "123 dogs", "won too free dogs", agreement=0) in (
        "one two three dogs",
        "123 dogs",
    )
    assert text("I don\u2019t", "I don't", "I did", "I did", "I do not", agreement=0) in (
        "I don't",
        "I do not",
    )
    assert text("\u00c9COLE", "\u00e9cole", "a", agreement=0, space="words") == "\u00c9COLE"


def test_the_spelling_that_most_write_is_written():
    assert text("The colour", "the color", "The color") == "The color"


def test_missing_failed_and_empty_rows():
    failed = NBest(utt_id="u", system="s", hyps=(Hypothesis(text=""),), error="damaged")
    mixed = Ballot("u", (*ballot("a dog", None, "a dog").rows, failed, failed, failed))
    (fused,) = fuse([mixed])
    assert fused.row.best.text == "a dog"
    assert text("", "", "dog") == ""
    (silent,) = fuse([ballot(None, None)], hyps=2)
    assert silent.row.error is not None
    assert [one.text for one in silent.row.hyps] == [""]
    assert [fused.row.best.text for fused in fuse([ballot("")])] == [""]


def test_a_voter_that_agrees_with_nobody_counts_little():
    rows = ("a big dog ran", "a big dog ran", "we hid it sat", "why ask me sat", "too far off sat")
    assert text(*rows, agreement=0).endswith("sat")
    assert text(*rows) == "a big dog ran"


def test_voters_of_one_member_do_not_confirm_each_other():
    def weights(*members):
        said = zip(members, ("a b", "a c", "x y"), strict=True)
        heard = heard_hypotheses(
            [[Heard(member, 1.0, Hypothesis(text=text)) for member, text in said]], "words"
        )
        ((_, networks),) = build_networks(heard)
        # As much trust in everybody.
        everybody = 1 - np.eye(3, dtype=np.int64)
        trust = Trust(0 * everybody, UNIT * everybody, np.full(3, UNIT // 2), {}, 0)
        votes = cast_votes(networks, heard, VoteOptions(agreement=1), trust)
        by_hypothesis = np.argsort(networks.voter[:, 0])
        return votes.weight[by_hypothesis, 0].tolist()

    one, other, third = weights(0, 1, 2)
    assert one == other > third
    one, other, third = weights(0, 0, 2)
    assert one == other == third


def test_confidence_decides_where_it_counts():
    sure, unsure = hyp("cat", [0.9]), hyp("dog", [0.3])
    assert text(sure, unsure, unsure, alpha=1.0) == "dog"
    assert text(sure, unsure, unsure, alpha=0.0, agreement=0) == "cat"


def test_a_missing_confidence_is_the_mean_of_those_there_are():
    unknown = Hypothesis(text="dog")
    # Mean 0.6: less than 0.9, more than 0.3.
    assert text(hyp("cat", [0.9]), unknown, hyp("who", [0.3]), alpha=0.0) == "cat"
    assert text(hyp("cat", [0.5]), unknown, hyp("who", [0.7]), alpha=0.0) == "who"
    assert text(hyp("cat", [0.5]), unknown, unknown, alpha=0.0) == "dog"


def test_a_gap_is_as_sure_as_the_words_beside_it_or_as_it_is_told():
    word = hyp("big dog", [0.5, 0.5])
    gap = hyp("dog", [0.9])
    assert text(word, gap, alpha=0.0) == "dog"
    assert text(word, gap, alpha=0.0, null_confidence=0.1) == "big dog"
    unsure = hyp("dog", [0.3])
    assert text(word, unsure, alpha=0.0) == "big dog"
    assert text(word, unsure, alpha=0.0, null_confidence=0.9) == "dog"
    assert text(word, unsure, alpha=0.0, null_confidence=(0.1, 0.9)) == "dog"
    assert text(word, unsure, alpha=0.0, null_confidence=(0.9, 0.1)) == "big dog"
    with pytest.raises(
        ValueError, match="3 null confidences, must be one or as many as members: 2"
    ):
        text(word, gap, alpha=0.0, null_confidence=(0.1, 0.2, 0.3))


def test_weights_and_their_number():
    assert text("cat", "dog", "dog", weights=(3.0, 1.0, 1.0), agreement=0) == "cat"
    assert text("cat", "dog", weights=(0.0, 1.0)) == "dog"
    assert text("cat", "dog", weights=(1.0, 2.0)) == "dog"
    assert text("cat", "dog", weights=(2.0, 1.0)) == "cat"
    with pytest.raises(ValueError, match="1 weights, must be as many as members: 2"):
        text("cat", "dog", weights=(1.0,))


def test_lists_vote_by_their_posteriors():
    first = [hyp("cat", score=-1.0), hyp("dog", score=-1.1), hyp("dog now", score=-1.2)]
    assert text(first, nbest=1) == "cat"
    assert text(first, nbest=3) == "dog"
    assert posteriors([Hypothesis(text="a", score=0.0), Hypothesis(text="b")], 1.0) == [1.0, 0.0]
    assert posteriors([Hypothesis(text="a", score=-800.0)] * 2, 1.0) == [0.5, 0.5]


def test_an_ngram_breaks_ties(make_ngram):
    ngram = NGram(make_ngram(["the cat sat on the mat", "the dog sat"] * 20))
    assert text("the cat", "the zat", ngram=ngram) == "the cat"
    assert text("the zat", "the cat", ngram=ngram) == "the cat"


def test_what_lost_is_kept():
    (fused,) = fuse([ballot("a big dog", "a dog", "a pig dog")], hyps=9, networks=True)
    shown = {tuple(arc.text for arc in slot) for slot in fused.network.slots}
    assert {len(slot) for slot in shown} == {1, 3}
    for slot in fused.network.slots:
        assert sum(arc.share for arc in slot) == pytest.approx(1, abs=1e-5)
    assert {one.text for one in fused.row.hyps} == {"a big dog", "a dog", "a pig dog"}
    scores = [one.score for one in fused.row.hyps]
    assert scores == sorted(scores, reverse=True)


def test_a_network_survives_the_disk(tmp_path):
    from manifests import WordNetwork, read_rows

    networks = [fused.network for fused in fuse([ballot("a dog", "the dog")], networks=True)]
    write_rows(tmp_path / "n.jsonl", networks)
    assert list(read_rows(tmp_path / "n.jsonl", WordNetwork)) == networks


def test_times_are_the_mean_of_those_who_wrote_the_word():
    early = Hypothesis(text="dog", words=(Word(text="dog", start=1.0, end=2.0),))
    late = Hypothesis(text="dog", words=(Word(text="dog", start=2.0, end=4.0),))
    (fused,) = fuse([ballot(early, late, "Dog")])
    assert [(w.text, w.start, w.end) for w in fused.row.best.words] == [("dog", 1.5, 3.0)]


def test_many_members_and_long_texts():
    rng = random.Random(1)
    truth = [f"w{rng.randrange(50)}" for _ in range(120)]
    heard = [
        " ".join(rng.choice(truth) if rng.random() < 0.2 else word for word in truth)
        for _ in range(50)
    ]
    assert text(*heard).split() == truth


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("alpha", 1.5, r"alpha is 1.5, must lie in \[0, 1\]"),
        ("null_confidence", -1.0, "null_confidence is -1"),
        ("null_confidence", (0.5, 2.0), "null_confidence is 2"),
        ("null_confidence", float("nan"), "null_confidence is nan"),
        ("agreement", -1, "agreement is -1, must be >= 0"),
        ("nbest", 0, "nbest is 0, must be >= 1"),
        ("nbest_scale", float("nan"), "nbest_scale is nan"),
        ("weights", (0.0, 0.0), "must be finite, >= 0 and not all 0"),
    ],
)
def test_options_out_of_range(field, value, rule):
    with pytest.raises(ValueError, match=rule):
        VoteOptions(**{field: value})
