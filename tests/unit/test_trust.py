"""Whom to trust, learned from votes: copies, independents, the silent and the mad."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.pool import Ballot
from fusion.rover import rover
from fusion.voting.combine import fuse
from fusion.voting.hearings import Heard, heard_hypotheses
from fusion.voting.trust import SHARE, UNIT, Tally, learn, sample, tally
from fusion.voting.vote import VoteOptions
from manifests import Hypothesis, NBest, read_nbest, write_rows
from scoring.counts import ErrorCounts, count_errors

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrt"]


def spoken(utterances, rng):
    return [[rng.choice(VOCABULARY) for _ in range(8)] for _ in range(utterances)]


def heard_with(errors, sentences, rng):
    """Return what somebody hears who gets so many words wrong, each in its own way."""
    return [
        [rng.choice(VOCABULARY) if rng.random() < errors else word for word in words]
        for words in sentences
    ]


def ballots(members):
    return [
        Ballot(
            f"u{n}",
            tuple(
                None
                if words is None
                else NBest(utt_id=f"u{n}", system="s", hyps=(Hypothesis(text=" ".join(words)),))
                for words in said
            ),
        )
        for n, said in enumerate(zip(*members, strict=True))
    ]


def tally_of(members):
    said = [
        [
            Heard(m, 1.0, Hypothesis(text=" ".join(words)))
            for m, words in enumerate(utterance)
            if words is not None
        ]
        for utterance in zip(*members, strict=True)
    ]
    return tally(heard_hypotheses(said, "words"), len(members))


def wer(members, sentences):
    fused = fuse(ballots(members), VoteOptions(space="words"))
    counts = (
        count_errors(words, one.row.best.text.split())
        for words, one in zip(sentences, fused, strict=True)
    )
    return 100 * sum(counts, ErrorCounts()).rate


@pytest.fixture(scope="module")
def crowd():
    """Four people who err independently, in 10, 20, 20 and 30 % of 2,400 words."""
    rng = random.Random(7)
    sentences = spoken(300, rng)
    return sentences, [heard_with(errors, sentences, rng) for errors in (0.1, 0.2, 0.2, 0.3)]


def test_independent_members_share_nothing_and_the_better_one_is_known(crowd):
    trust = learn(tally_of(crowd[1]))
    assert trust.shared.max() <= SHARE // 8
    assert trust.usual[0] > trust.usual[1] > trust.usual[3]
    assert abs(trust.usual[1] - trust.usual[2]) < 0.05 * UNIT
    # Others agree with the first in 0.9 of the 0.7 to 0.8 that they get right.
    assert trust.usual[0] / UNIT == pytest.approx(0.9 * 0.77, abs=0.03)


def test_copies_share_their_votes_and_tell_nothing_of_each_other(crowd):
    _, (one, two, three, four) = crowd
    trust = learn(tally_of([one, two, three, four, four, four]))
    assert (trust.evidence[3:, 3:] == 0).all()
    assert (trust.shared[3:, 3:] + SHARE * np.eye(3) >= round(0.8 * SHARE)).all()
    assert trust.shared[:3].max() < trust.shared[3, 4] * 0.8
    # Three copies tell of others what one of them would.
    alone = learn(tally_of([one, two, three, four]))
    assert trust.evidence[0, 3:].sum() == pytest.approx(alone.evidence[0, 3], rel=0.4)


def test_an_imperfect_copy_is_one_too(crowd):
    _, (one, two, three, four) = crowd
    rng = random.Random(8)
    close = [[rng.choice(VOCABULARY) if rng.random() < 0.05 else w for w in said] for said in four]
    trust = learn(tally_of([one, two, three, four, close]))
    assert trust.shared[3, 4] > max(SHARE // 2, 1.25 * trust.shared[:3].max())


@pytest.mark.parametrize("copies", [1, 2, 6])
def test_copies_of_the_worst_member_do_not_outvote_the_rest(crowd, copies):
    sentences, members = crowd
    without = wer(members, sentences)
    assert wer(members + members[-1:] * copies, sentences) <= without + 2.5  # the worst has 30


def test_the_silent_and_the_mad_do_no_harm(crowd):
    sentences, members = crowd
    without = wer(members, sentences)
    silent = [[] for _ in sentences]
    mad = [heard_with(0.0, sentences, random.Random(9))[n - 1] for n in range(len(sentences))]
    assert wer([*members, silent, silent], sentences) <= without + 0.5
    assert wer([*members, mad], sentences) <= without + 0.5


def test_members_that_never_meet_are_trusted_alike():
    rng = random.Random(3)
    sentences = spoken(40, rng)
    members = [heard_with(0.2, sentences, rng) for _ in range(4)]
    for n in range(40):
        for m in (0, 1) if n < 20 else (2, 3):
            members[m][n] = None
    trust = learn(tally_of(members))
    assert not trust.shared[:2, 2:].any()
    assert not trust.evidence[:2, 2:].any()
    assert np.ptp(trust.usual) < 0.2 * UNIT


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 6).flatmap(
        lambda members: st.lists(
            st.lists(
                st.lists(st.sampled_from("abcd"), max_size=4),
                min_size=members,
                max_size=members,
            ),
            min_size=1,
            max_size=8,
        )
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_members_does_not_show(utterances, shuffler):
    members = [list(column) for column in zip(*utterances, strict=True)]
    order = list(range(len(members)))
    shuffler.shuffle(order)
    trust, other = learn(tally_of(members)), learn(tally_of([members[m] for m in order]))
    pairs = np.ix_(order, order)
    assert (trust.shared[pairs] == other.shared).all()
    assert (trust.evidence[pairs] == other.evidence).all()
    assert (trust.usual[order] == other.usual).all()
    assert trust.favour == other.favour
    assert (trust.shared == trust.shared.T).all()


def test_of_two_groups_the_larger_wins_and_then_the_common_word():
    said = ["a big dog", "a big cat", "a dog ran", "the dog sat", "a big dog"]
    ours = [text.split() for text in said]
    other = [["a", "pig", "dog"], *ours[1:]]
    options = VoteOptions(space="words")

    def first(*members):
        return next(iter(fuse(ballots(members), options))).row.best.text

    assert first(ours, other) == first(other, ours) == "a big dog"
    assert first(ours, other, other) == first(other, ours, other) == "a pig dog"


def test_a_tally_among_some_is_theirs_alone(crowd):
    _, members = crowd
    trust = learn(tally_of(members).among([0, 2]))
    alone = learn(tally_of([members[0], members[2]]))
    assert (trust.evidence[np.ix_([0, 2], [0, 2])] == alone.evidence).all()
    assert not trust.evidence[[1, 3]].any()
    assert (trust.usual[[0, 2]] == alone.usual).all()


def test_only_the_first_utterances_are_asked():
    assert [sample(members) for members in (1, 2, 7, 49)] == [1000, 1000, 1000, 111]
    rng = random.Random(5)
    sentences = spoken(sample(2) + 50, rng)
    members = [heard_with(0.2, sentences, rng) for _ in range(2)]
    whole, first = tally_of(members), tally_of([said[: sample(2)] for said in members])
    assert isinstance(whole, Tally)
    assert (whole.same == first.same).all()
    assert (whole.words == first.words).all()
    assert whole.common == first.common


def test_files_and_ballots_give_the_same_whoever_works(tmp_path):
    rng = random.Random(6)
    sentences = spoken(5000, rng)
    good, bad = (heard_with(errors, sentences, rng) for errors in (0.1, 0.4))
    members = ballots([good, bad, bad])
    paths = [tmp_path / f"{m}.jsonl" for m in range(3)]
    for m, path in enumerate(paths):
        write_rows(path, (ballot.rows[m] for ballot in members))
    for jobs in (1, 2):
        rover(paths, tmp_path / f"{jobs}.out", jobs=jobs)
    assert (tmp_path / "1.out").read_bytes() == (tmp_path / "2.out").read_bytes()
    rover(paths[::-1], tmp_path / "reversed.out", jobs=1)
    assert (tmp_path / "1.out").read_bytes() == (tmp_path / "reversed.out").read_bytes()
    texts = [row.best.text for row in read_nbest(tmp_path / "1.out")]
    assert texts == [one.row.best.text for one in fuse(members)]
