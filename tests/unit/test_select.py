"""One member per utterance: by confidence, by kind; never by luck, by name order or by the text."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from fusion.folds import held_out
from fusion.pool import NO_VOTE, Ballot
from fusion.select import METHODS, main, model_path, read_model, write_model
from fusion.selection.by_confidence import ConfidenceMethod, choose
from fusion.selection.by_kind import HeuristicMethod, agree
from fusion.truth import outcome
from manifests import Hypothesis, NBest, Utterance, Word, read_nbest, write_rows

MEMBERS = ("left", "right")


def heard(utt_id, text, confidence=None, system="s"):
    words = tuple(Word(text=word, confidence=confidence) for word in text.split())
    return NBest(utt_id=utt_id, system=system, hyps=(Hypothesis(text=text, words=words),))


def corpus(count=160, seed=0):
    """Left hears long utterances, right the short ones; both say so, left too boldly."""
    random = np.random.default_rng(seed)
    ballots, references = [], {}
    for i in range(count):
        long = bool(random.random() < 0.5)
        utt_id, truth = f"u{i:03}", "the dog runned home" if long else "a dog"
        good = (random.random() < (0.9 if long else 0.3), random.random() < (0.3 if long else 0.9))
        texts = [
            truth if right else truth.replace("dog", name)
            for right, name in zip(good, ("cat", "cow"), strict=True)
        ]
        sure = (0.99 if good[0] else 0.9, 0.6 if good[1] else 0.3)
        ballots.append(Ballot(utt_id, tuple(map(heard, [utt_id] * 2, texts, sure))))
        references[utt_id] = Utterance(
            utt_id=utt_id, audio_filepath="a", duration=4.0 if long else 1.5, text=truth,
            speaker=f"s{i % 8}", age="8-11" if long else "3-4",
        )  # fmt: skip
    return ballots, references


def errors(rows, references):
    return int(outcome([Ballot(row.utt_id, (row,)) for row in rows], references).errors.sum())


@pytest.mark.parametrize("how", METHODS)
def test_choosing_is_better_than_the_best_member_on_unseen_speakers(how):
    ballots, references = corpus()
    unseen, truth = corpus(seed=1)
    method = METHODS[how](MEMBERS)
    alone = outcome(unseen, truth).errors.sum(axis=0).min()
    assert errors(held_out(method, ballots, references), references) < 0.6 * alone
    model = method.fit(ballots, references)
    assert errors(model.apply(unseen, truth), truth) < 0.6 * alone


@pytest.mark.parametrize("how", METHODS)
def test_a_model_is_a_file_and_the_order_of_members_does_not_matter(how, tmp_path):
    ballots, references = corpus(60)
    model = METHODS[how](MEMBERS).fit(ballots, references)
    write_model(tmp_path / "m.json", model)
    assert read_model(tmp_path / "m.json") == model
    turned = [Ballot(b.utt_id, b.rows[::-1]) for b in ballots]
    other = METHODS[how](MEMBERS[::-1]).fit(turned, references)
    assert list(other.apply(turned, references)) == list(model.apply(ballots, references))


@pytest.mark.parametrize("how", METHODS)
def test_whoever_did_not_vote_is_not_chosen(how):
    ballots, references = corpus(60)
    model = METHODS[how](MEMBERS).fit(ballots, references)
    failed = msgspec.structs.replace(heard("x", ""), error="damaged")
    one = heard("x", "a dog", 0.01)
    cases = [(one, None), (None, one), (failed, one), (None, failed)]
    rows = list(model.apply([Ballot("x", rows) for rows in cases]))
    assert [row.best.text for row in rows] == ["a dog"] * 3 + [""]
    assert [row.error for row in rows] == [None] * 3 + [NO_VOTE]
    assert {row.system for row in rows} == {"select"}


@pytest.mark.parametrize("how", METHODS)
def test_nothing_said_and_no_confidences(how):
    ballots, references = corpus(40)
    bare = [
        Ballot(
            b.utt_id,
            tuple(NBest(utt_id=b.utt_id, system="s", hyps=(Hypothesis(text=""),)) for _ in b.rows),
        )
        for b in ballots[:20]
    ] + [
        Ballot(
            b.utt_id,
            tuple(
                NBest(utt_id=b.utt_id, system="s", hyps=(Hypothesis(text=r.best.text),))
                for r in b.rows
            ),
        )
        for b in ballots[20:]
    ]
    rows = list(METHODS[how](MEMBERS).fit(bare, references).apply(bare, references))
    assert [row.utt_id for row in rows] == [b.utt_id for b in bare]


def test_confidence_that_says_nothing_leaves_the_best_member_alone():
    random = np.random.default_rng(5)
    ballots, references = [], {}
    for i in range(120):
        good = random.random() < 0.9, random.random() < 0.6
        rows = [
            heard(f"u{i}", "a dog" if right else "a cat", float(random.random())) for right in good
        ]
        ballots.append(Ballot(f"u{i}", tuple(rows)))
        references[f"u{i}"] = Utterance(
            utt_id=f"u{i}", audio_filepath="a", duration=1, text="a dog"
        )
    model = ConfidenceMethod(MEMBERS).fit(ballots, references)
    chosen = [row.best.text for row in model.apply(ballots)]
    assert sum(text != b.rows[0].best.text for text, b in zip(chosen, ballots, strict=True)) < 3


@pytest.mark.parametrize("how", ["confidence", "learned"])
def test_chosen_words_have_the_confidence_of_their_member(how):
    ballots, references = corpus(100)
    model = METHODS[how](MEMBERS).fit(ballots, references)
    [fair] = model.calibration.apply([Ballot("x", (heard("x", "a dog", 0.9), None))])
    for row in model.apply([Ballot("x", (heard("x", "a dog", 0.9), None))]):
        assert row.best.words == fair.rows[0].best.words != heard("x", "a dog", 0.9).best.words
    left, right = (
        next(iter(model.apply([Ballot("x", rows)]))).best.words[0].confidence
        for rows in ((heard("x", "a", 0.6), None), (None, heard("x", "a", 0.6)))
    )
    assert left != right


def test_another_member_must_be_surer_by_the_margin():
    promise = np.array([[0.5, 0.6], [0.5, 0.8], [np.nan, 0.1], [0.5, np.nan], [np.nan, np.nan]])
    assert choose(promise, best=0, margin=0.2).tolist() == [0, 1, 1, 0, 0]
    assert choose(promise, best=0, margin=1.0).tolist() == [0, 0, 1, 0, 0]
    assert choose(promise, best=1, margin=0.0).tolist() == [1, 1, 1, 0, 1]


def test_agreement_is_the_scorers():
    same = Ballot("u", (heard("u", "He's one two"), None, heard("u", "he is 12")))
    assert agree(same)
    assert not agree(Ballot("u", (heard("u", "a"), heard("u", ""))))
    ballots, references = corpus(60)
    model = HeuristicMethod(MEMBERS).fit(ballots, references)
    assert model.by in ("length", "duration", "age", "age, length", "age, duration")


def test_the_command_learns_writes_and_applies(tmp_path: Path, caplog, capsys):
    for part, seed in (("dev", 0), ("test", 1)):
        ballots, references = corpus(80, seed)
        for m, name in enumerate(MEMBERS):
            write_rows(tmp_path / part / f"{name}.jsonl", [b.rows[m] for b in ballots])
        write_rows(tmp_path / f"{part}.jsonl", references.values())
    dev, test = (
        [str(tmp_path / part / f"{name}.jsonl") for name in MEMBERS] for part in ("dev", "test")
    )
    out = tmp_path / "f.jsonl"
    call = ["--dev-hyp", *dev, "--dev-ref", str(tmp_path / "dev.jsonl"), "--out", str(out)]
    with caplog.at_level("INFO"):
        assert main([*test[::-1], *call]) == 0
    assert "held-out speakers" in caplog.text
    first = list(read_nbest(out))
    again = tmp_path / "g.jsonl"
    assert main([*test, "--model", str(model_path(out)), "--out", str(again)]) == 0
    assert list(read_nbest(again)) == first
    assert main([test[0], *call]) == 1
    assert "must be left, right" in capsys.readouterr().err
    assert main([*test, "--model", str(tmp_path / "dev.jsonl"), "--out", str(again)]) == 1
    assert "is no model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*test, "--out", str(out)])
