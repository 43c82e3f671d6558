"""What the judge of arcs looks at: joined slots, other utterances, spellings, whole ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.arc_edits import differences, met, odds
from fusion.arc_elsewhere import Elsewhere
from fusion.arc_model import networks_of
from fusion.arc_paths import by_ngram, by_voters
from fusion.arc_slots import Slots
from fusion.pool import Ballot
from fusion.voting.vote import VoteOptions
from lm.ngram import NGram
from lm.train import train
from manifests import Hypothesis, NBest

WORDS = VoteOptions(space="words")


def sausages(*utterances):
    ballots = [
        Ballot(
            f"u{n}", tuple(NBest(utt_id=f"u{n}", system="s", hyps=(Hypothesis(text=t),)) for t in u)
        )
        for n, u in enumerate(utterances)
    ]
    return dict(networks_of(ballots, WORDS))


def slots_of(*utterances):
    return {place: Slots(one) for place, one in sorted(sausages(*utterances).items())}


def test_a_word_and_its_two_halves_are_one_slot():
    (sausage,) = sausages(
        ["fried bread crumbs", "fried bread crumbs", "fried breadcrumbs"]
    ).values()
    slots = Slots(sausage)
    assert [set(shares) for shares in slots.shares] == [{"fried"}, {"bread crumbs", "breadcrumbs"}]
    assert len(sausage.shares) == 3
    after = slots.believe({1: {"breadcrumbs": 0.9, "bread crumbs": 0.3}})
    assert slots.shares[1]["bread crumbs"] > 0.5
    after.decide()
    assert sausage.hypotheses()[0].text == "fried breadcrumbs"


def test_slots_that_nothing_was_learned_of_stay_as_voted():
    (sausage,) = sausages(["i see the scene", "i seen the seen", "i saw the scene"]).values()
    before = [dict(shares) for shares in sausage.shares]
    slots = Slots(sausage)
    assert len(slots.shares) == len(before)
    slots.decide()
    assert sausage.shares == before


def test_the_voters_of_a_joined_slot_are_those_of_both():
    (slots,) = slots_of(["to day", "today", "to day", ""]).values()
    said = [slots.vocabulary[row[0]] for row in slots.said]
    assert sorted(said) == ["", "to day", "to day", "today"]
    assert sum(slots.shares[0].values()) == pytest.approx(1)


def test_words_are_heard_elsewhere_and_the_nearer_the_more():
    found = slots_of(["gwynplaine laughed"], ["he ran"], ["gwynplaine ran"], ["the gwynplaine"])
    elsewhere = Elsewhere(found)
    assert elsewhere.total("gwynplaine", 1) == 3
    assert elsewhere.total("gwynplaine", 0) == 2  # not one's own
    assert elsewhere.total("gwynplaine ran", 1) == 1
    assert elsewhere.total("<s> gwynplaine", 3) == 2
    assert elsewhere.near("gwynplaine", 1)[0] > elsewhere.near("laughed", 2)[0] > 0
    assert elsewhere.total("nobody", 0) == 0
    assert set(elsewhere.near("laughed", 0)) == {0.0}


@given(st.lists(st.sampled_from(["a", "b", "a b", "b a", ""]), min_size=1, max_size=12))
def test_nearness_is_the_sum_over_all_others(texts):
    found = slots_of(*([text] for text in texts))
    elsewhere = Elsewhere(found)
    for place in range(len(texts)):
        expected = sum(
            texts[other].split().count("a") * 0.5 ** (abs(other - place) / 4)
            for other in range(len(texts))
            if other != place
        )
        assert elsewhere.near("a", place)[0] == pytest.approx(expected)


def test_what_letters_tell_is_learned_from_other_words():
    slots = [{"honors": 0.9, "honours": 0.1}, {"labor": 0.8, "labour": 0.2}]
    seen = list(met(slots, ["honours", "labour"]))
    edits = {edit: seen.count(edit) for edit in seen}
    bare, _, around, _ = odds("vapours", "vapors", 0.2, 0.8, edits)
    assert bare > 0
    assert around > 0
    assert odds("vapors", "vapours", 0.8, 0.2, edits)[0] == -bare
    assert odds("vapours", "vapors", 0.8, 0.2, edits)[0] == 0  # where more had it: never met
    assert odds("cat", "", 0.8, 0.2, edits) == [0.0] * 4


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_a_difference_reads_the_same_from_both_sides(text, rival):
    there, back = differences(text, rival), differences(rival, text)
    assert len(there) == len(back)
    for one, other in zip(there, back, strict=True):
        assert one != other


def test_ways_weigh_what_goes_together(tmp_path):
    (tmp_path / "text").write_text("the sun set\nthe son ran\n" * 40)
    train([tmp_path / "text"], tmp_path / "lm", order=3)
    (slots,) = slots_of(["the sun ran", "the son set", "the sun ran", "the son set"]).values()
    slots = slots.believe({1: {"sun": 0.5, "son": 0.5}, 2: {"ran": 0.6, "set": 0.4}})
    spoken = by_ngram(slots, NGram(tmp_path / "lm"))
    assert spoken[1]["son"] > spoken[1]["sun"]
    assert by_ngram(slots, None) == slots.shares
    agreed = by_voters(slots)
    assert agreed[1]["sun"] > agreed[1]["son"]
    for shares in (*spoken, *agreed):
        assert sum(shares.values()) == pytest.approx(1)
