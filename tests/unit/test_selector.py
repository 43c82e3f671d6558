"""The learned ranking: features by hand, weights by a finite-difference test, order of members."""

import msgspec
import numpy as np
import pytest

from fusion.calibration import Calibration, MemberCalibration
from fusion.candidates import batches
from fusion.folds import held_out
from fusion.pool import NO_VOTE, Ballot
from fusion.selection.features import SHARED, feature_names, features
from fusion.selection.selector import (
    KEPT,
    LearnedMethod,
    LearnedModel,
    Table,
    as_written,
    fit_weights,
    log_softmax,
)
from fusion.truth import outcome
from manifests import Hypothesis, NBest, Utterance, Word

PLAIN = Calibration(
    members=tuple(
        MemberCalibration(name=name, words=10, accuracy=0.5, curve=None, null=0.5, null_slots=0)
        for name in ("one", "two", "three")
    )
)


def listed(utt_id, *hyps, system="s"):
    """``hyps`` are texts, or a text and its score."""
    rows = [hyp if isinstance(hyp, tuple) else (hyp, None) for hyp in hyps]
    return NBest(
        utt_id=utt_id,
        system=system,
        hyps=tuple(Hypothesis(text=text, score=score) for text, score in rows),
    )


def columns(ballot, calibration=PLAIN):
    """Return the features of a ballot by text and name."""
    [candidates] = batches([ballot])
    found = features(candidates, calibration)
    names = feature_names([member.name for member in calibration.members])
    assert found.values.shape == (len(candidates.texts[0]), len(names))
    return {
        candidates.texts[0][k]: dict(zip(names, row.tolist(), strict=True))
        for k, row in zip(found.place, found.values, strict=True)
    }


def test_features_by_hand():
    ballot = Ballot(
        "u",
        (
            listed("u", ("A dog", -1.0), ("a log", -1.0 - np.log(3))),
            listed("u", ("a dog", -5.0)),
            listed("u", "the log"),
        ),
    )
    found = columns(ballot)
    dog, log, other = found["a dog"], found["a log"], found["the log"]
    assert [dog["agree"], log["agree"], other["agree"]] == pytest.approx([2 / 3, 0, 1 / 3])
    assert [dog["listed"], log["listed"], other["listed"]] == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert [dog["risk"], log["risk"], other["risk"]] == pytest.approx([2 / 3, 1, 4 / 3])
    assert dog["list_risk"] == pytest.approx((0.25 + 0 + 2) / 3)
    assert [dog["rank:one"], log["rank:one"], log["rank:two"]] == [1, 0.5, 0]
    assert [dog["share:one"], log["share:one"], dog["share:two"]] == pytest.approx([0.75, 0.25, 1])
    assert log["ln_share:one"] == pytest.approx(np.log(0.25))
    assert log["ln_share:two"] == -10
    assert [dog["distance:three"], log["distance:three"]] == [2, 1]
    assert [dog["nearest"], log["nearest"]] == [2, 1]
    assert dog["mean:one"] == dog["least:one"] == 0.5
    assert dog["ln_words:one"] == pytest.approx(2 * np.log(0.5))
    # "a dog" has a second vote that is like it; "the log" is unlike both.
    assert dog["trusted_risk"] < dog["risk"]
    assert other["trusted_risk"] > other["risk"]
    assert {text: row["lm"] for text, row in found.items()} == dict.fromkeys(found, 0.0)


def test_a_text_twice_in_one_list_has_the_better_rank_and_both_shares():
    twice = listed("u", ("a dog", -1.0), ("a log", -1.0), ("A dog!", -1.0))
    found = columns(Ballot("u", (twice, None, None)))["a dog"]
    assert found["rank:one"] == 1
    assert found["share:one"] == pytest.approx(2 / 3)
    assert found["ln_share:one"] == pytest.approx(np.log(2 / 3))


def test_the_ngram_of_any_list_counts_for_the_text():
    hyps = (Hypothesis(text="a", lm_score=-2.0), Hypothesis(text="b c", lm_score=-8.0))
    row = NBest(utt_id="u", system="s", hyps=hyps)
    found = columns(Ballot("u", (row, listed("u", "b c"), listed("u", "d"))))
    assert [found[text]["lm"] for text in ("a", "b c", "d")] == [3.0, -3.0, 0.0]
    assert [found[text]["lm_word"] for text in ("a", "b c", "d")] == [1.0, -1.0, 0.0]


def test_silence_and_whoever_did_not_vote():
    found = columns(Ballot("u", (listed("u", ""), None, listed("u", "a b"))))
    assert found[""]["empty"] == 1
    assert found[""]["risk"] == found["a b"]["risk"] == 1.0
    assert found["a b"]["distance:two"] == 0
    assert np.isfinite([value for row in found.values() for value in row.values()]).all()


def test_weights_are_where_the_loss_is_least():
    random = np.random.default_rng(0)
    ballot = np.repeat(np.arange(30), 3)
    values = random.normal(size=(90, len(SHARED) + 2))
    errors = np.round(2 + values[:, 0] - values[:, -1]).astype(np.int64).clip(0)
    table = Table(values, ballot, errors, 30)

    def loss(weights):
        centred = values - (np.add.reduceat(values, np.arange(0, 90, 3)) / 3)[ballot]
        spread = centred.std(axis=0)
        held = np.where(np.arange(len(spread)) < len(SHARED), 1.0, 30.0)
        target = np.exp(log_softmax(-errors.astype(float), ballot, 30))
        ln = log_softmax(values @ weights, ballot, 30)
        return 0.5 * held @ (weights * spread) ** 2 - target @ ln

    weights = fit_weights(table, 1.0)
    assert weights[0] < -0.3
    for column in range(values.shape[1]):
        for step in (-1e-3, 1e-3):
            moved = weights.copy()
            moved[column] += step
            assert loss(moved) > loss(weights) - 1e-6


def corpus(count=150, seed=0):
    """Truth is in both lists, first in neither; each member adds errors of its own."""
    random = np.random.default_rng(seed)
    ballots, references = [], {}
    for i in range(count):
        utt_id, truth = f"u{i:03}", f"word{random.integers(50)} dog runned"
        rows = []
        for wrong in ("cat", "cow"):
            texts = [truth.replace("dog", wrong), truth]
            if random.random() < 0.4:
                texts.reverse()
            rows.append(listed(utt_id, (texts[0], -1.0), (texts[1], -1.2), system=wrong))
        ballots.append(Ballot(utt_id, tuple(rows)))
        references[utt_id] = Utterance(
            utt_id=utt_id, audio_filepath="a", duration=1, text=truth, speaker=f"s{i % 7}"
        )
    return ballots, references


def errors(rows, references):
    return int(outcome([Ballot(row.utt_id, (row,)) for row in rows], references).errors.sum())


def test_what_both_lists_hold_is_learned_to_be_right():
    ballots, references = corpus()
    unseen, truth = corpus(seed=1)
    method = LearnedMethod(("cat", "cow"))
    assert errors(held_out(method, ballots, references), references) < 5
    model = method.fit(ballots, references)
    rows = list(model.apply(unseen))
    assert outcome(unseen, truth).errors.sum(axis=0).min() > 60
    assert errors(rows, truth) < 5
    for row in rows:
        probability = np.exp([hyp.score for hyp in row.hyps])
        assert np.all(np.diff(probability) <= 0)
        assert probability.sum() == pytest.approx(1, abs=1e-4)


def test_neither_order_of_members_nor_batching_changes_the_answer():
    ballots, references = corpus(60)
    model = LearnedMethod(("cat", "cow")).fit(ballots, references)
    turned = [Ballot(b.utt_id, b.rows[::-1]) for b in ballots]
    other = LearnedMethod(("cow", "cat")).fit(turned, references)
    plain = [(row.utt_id, row.best.text) for row in model.apply(ballots)]
    assert [(row.utt_id, row.best.text) for row in other.apply(turned)] == plain
    singly = [next(iter(model.apply([ballot]))) for ballot in ballots]
    assert [(row.utt_id, row.best.text) for row in singly] == plain


def test_a_model_survives_its_file_and_ballots_without_votes():
    ballots, references = corpus(30)
    model = LearnedMethod(("cat", "cow")).fit(ballots, references)
    again = msgspec.json.decode(msgspec.json.encode(model), type=LearnedModel)
    assert list(again.apply(ballots)) == list(model.apply(ballots))
    stranger = msgspec.structs.replace(model, weights={"shoe size": 1.0})
    with pytest.raises(ValueError, match="shoe size: no such feature"):
        list(stranger.apply(ballots))
    failed = listed("x", "")
    failed = msgspec.structs.replace(failed, error="damaged")
    empty, silent = model.apply([Ballot("x", (failed, None)), Ballot("y", (listed("y", ""), None))])
    assert empty.error == NO_VOTE
    assert (silent.error, silent.best.text) == (None, "")
    assert list(model.apply([])) == []


def test_the_way_to_write_is_the_most_usual_and_keeps_its_words():
    words = (Word(text="Colour", start=0.0, end=1.0),)
    rows = (
        listed("u", "color"),
        NBest(utt_id="u", system="s", hyps=(Hypothesis(text="Colour", words=words),)),
        listed("u", "x", "Colour"),
    )
    [candidates] = batches([Ballot("u", rows)])
    text = candidates.texts[0].index("color")
    member, hyp = as_written(candidates, 0, text, ("one", "two", "three"))
    assert (member, hyp.words) == (1, words)


def test_an_answer_is_short():
    many = listed("u", *(f"a{i}" for i in range(9)))
    model = LearnedModel(
        members=("one", "two", "three"), depth=9, penalty=1.0, weights={}, calibration=PLAIN
    )
    [row] = model.apply([Ballot("u", (many, None, None))])
    assert len(row.hyps) == KEPT


def test_nothing_is_learned_where_all_say_the_same():
    """Members that are never wrong, or never heard anything, are no reason to give up."""
    for text in ("he goed", ""):
        ballots = [Ballot(name, (listed(name, text), listed(name, text))) for name in "abcd"]
        references = {
            name: Utterance(
                utt_id=name, audio_filepath="a.wav", duration=1.0, text="he goed", speaker=name
            )
            for name in "abcd"
        }
        method = LearnedMethod(("one", "two"))
        assert method.fit(ballots, references).weights == {}
        assert [row.best.text for row in held_out(method, ballots, references)] == [text] * 4
