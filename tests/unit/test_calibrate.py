"""Confidences become probabilities: rising curves, the scorer's words, held-out speakers."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.calibrate import calibrate_files, main
from fusion.calibration import (
    Calibration,
    fit_calibration,
    read_calibration,
    write_calibration,
)
from fusion.curves import AS_GIVEN, CURVE_KINDS, Isotonic, fit_curve, quality
from fusion.nulls import Nulls, fit_nulls, judge_nulls
from fusion.pool import Ballot
from fusion.truth import words_right
from manifests import Hypothesis, NBest, Utterance, Word, read_nbest, write_rows


def heard(text, confidence=None, utt_id="u", error=None):
    words = tuple(Word(text=word, confidence=confidence) for word in text.split())
    return NBest(utt_id=utt_id, system="s", hyps=(Hypothesis(text=text, words=words),), error=error)


def said(utt_id, text, speaker=None):
    return Utterance(utt_id=utt_id, audio_filepath="a", duration=1, text=text, speaker=speaker)


chances = st.floats(0, 1)


@given(st.sampled_from(CURVE_KINDS), st.lists(st.tuples(chances, st.booleans()), min_size=1))
def test_a_curve_rises_and_is_a_probability(kind, pairs):
    x, y = np.array([p for p, _ in pairs]), np.array([float(right) for _, right in pairs])
    curve = fit_curve(kind, x, y)
    p = curve(np.linspace(0, 1, 101))
    assert np.all(np.diff(p) >= 0)
    assert np.all((p > 0) & (p < 1) | (kind == "isotonic"))
    assert np.all((p >= 0) & (p <= 1))
    assert msgspec.json.decode(msgspec.json.encode(curve), type=type(curve)) == curve


@pytest.mark.parametrize("kind", CURVE_KINDS)
def test_an_overconfident_recogniser_is_mended(kind):
    random = np.random.default_rng(1)
    x = random.random(5000)
    y = (random.random(5000) < x**3).astype(float)
    fitted = fit_curve(kind, x[:2500], y[:2500])
    before, after = quality(x[2500:], y[2500:]), quality(fitted(x[2500:]), y[2500:])
    assert before.ece > 0.2
    assert after.ece < 0.04
    assert after.brier < before.brier


def test_quality_is_the_published_one():
    # Two bins: 0.05 of two words, one right; 0.95 of two words, both right.
    found = quality(np.array([0.05, 0.05, 0.95, 0.95]), np.array([1.0, 0, 1, 1]))
    assert found.ece == pytest.approx((2 * 0.45 + 2 * 0.05) / 4)
    assert found.brier == pytest.approx((0.95**2 + 0.05**2 + 2 * 0.05**2) / 4)


def test_few_words_all_right_are_not_certain():
    steps = fit_curve("isotonic", np.array([0.2, 0.2, 0.9]), np.array([0.0, 1.0, 1.0]))
    assert isinstance(steps, Isotonic)
    assert 0 < steps.y[0] < steps.y[-1] < 1


def test_steps_rise_although_small_ones_are_drawn_to_the_middle():
    x = np.array([0.1] * 100 + [0.5] * 100 + [0.9])
    y = np.array([0.0] * 100 + [1.0] * 100 + [1.0])
    y[100] = 0.0  # else the last two steps are one
    p = fit_curve("isotonic", x, y)(np.array([0.1, 0.5, 0.9]))
    assert np.all(np.diff(p) >= 0)


def test_a_word_of_two_words_is_right_when_both_are():
    both = Hypothesis(text="a dog", words=(Word(text="a dog"),))
    assert words_right(both, ["a", "dog"]) == [True]
    assert words_right(both, ["the", "dog"]) == [False]


@pytest.mark.parametrize(
    ("text", "truth", "right"),
    [
        ("one two three", ["123"], [True, True, True]),
        ("one two four", ["123"], [False, False, False]),
        ("he, um, goed", ["he", "goed"], [True, None, True]),
        ("don't go", ["do", "not", "go"], [True, True]),
        ("don't go", ["do", "go"], [False, True]),
        ("a b", [], [False, False]),
        ("", ["a"], []),
        ("colour I a", ["color", "i", "a"], [True, True, True]),
    ],
)
def test_words_are_right_as_the_scorer_sees_them(text, truth, right):
    assert words_right(Hypothesis(text=text), truth) == right


def nulls_of(texts, truth):
    rows = tuple(NBest(utt_id="u", system="s", hyps=(Hypothesis(text=text),)) for text in texts)
    found = judge_nulls([Ballot("u", rows)], [truth.split()])
    return sorted(zip(found.member.tolist(), found.right.tolist(), strict=True))


def test_a_null_is_right_where_nothing_was_said():
    # The liar's first "he" was not said; mute lacks it too, and "he", which was.
    assert nulls_of(["he he goed", "goed", "he goed"], "he goed") == [
        (1, False), (1, True), (2, True),
    ]  # fmt: skip
    assert nulls_of(["he goed", "he goed"], "he") == []
    assert nulls_of(["a dog", "a"], "a cat") == [(1, False)]  # another word: no gap either
    assert nulls_of(["12", "one", ""], "12") == [(2, False)]  # as the scorer sees words


def test_a_member_has_its_own_null_where_that_foretells_more():
    random = np.random.default_rng(1)
    member, right = np.repeat([0, 1], 300), np.repeat([0.9, 0.2], 300) > random.random(600)
    folds = (np.arange(600) % 5).tolist()
    told = Nulls(member, np.arange(600), right)
    own = fit_nulls(told, 2, folds)
    assert own == pytest.approx((0.9, 0.2), abs=0.05)
    # What the folds hold apart is luck: one rate for all.
    few = Nulls(member[::60], np.arange(10), np.array([1, 0] * 5, np.bool_))
    assert len(set(fit_nulls(few, 2, [n % 5 for n in range(10)]))) == 1
    empty = np.zeros(0, np.int64)
    assert fit_nulls(Nulls(empty, empty, empty > 0), 3, []) == (0.5, 0.5, 0.5)


def corpus(count=200, seed=0):
    """Two members: "bold" says 0.95 of every word and is right in half, "plain" says nothing."""
    random = np.random.default_rng(seed)
    ballots, references = [], {}
    for i in range(count):
        bold = "yes no" if random.random() < 0.5 else "so what"
        rows = (
            heard(bold, 0.95, f"u{i}"),
            NBest(utt_id=f"u{i}", system="p", hyps=(Hypothesis(text="yes so"),)),
        )
        ballots.append(Ballot(f"u{i}", rows))
        references[f"u{i}"] = said(f"u{i}", "yes no", f"s{i % 9}")
    return ballots, references


def test_calibration_is_fitted_and_applied(tmp_path):
    ballots, references = corpus()
    calibration = fit_calibration(["bold", "plain"], ballots, references)
    bold, plain = calibration.members
    assert plain.curve is None
    assert plain.accuracy == pytest.approx(0.5, abs=0.01)
    assert bold.before.ece > 0.3 > 0.1 > bold.after.ece
    found = next(iter(calibration.apply(ballots[:1])))
    assert [word.confidence for word in found.rows[0].best.words] == pytest.approx(
        [0.5] * 2, abs=0.1
    )
    assert [word.text for word in found.rows[1].best.words] == ["yes", "so"]
    assert {word.confidence for word in found.rows[1].best.words} == {plain.accuracy}
    write_calibration(tmp_path / "c.json", calibration)
    assert read_calibration(tmp_path / "c.json") == calibration


def test_applying_keeps_times_gaps_and_failures():
    ballots, references = corpus(40)
    calibration = fit_calibration(["bold", "plain"], ballots, references)
    timed = Word(text="a", start=0.5, end=1.0)
    row = NBest(utt_id="x", system="s", hyps=(Hypothesis(text="a", score=-1.0, words=(timed,)),))
    failed = heard("", utt_id="x", error="damaged")
    one, two = calibration.apply([Ballot("x", (row, None)), Ballot("x", (failed, row))])
    assert one.rows[1] is None
    assert two.rows[0].error == "damaged"
    [word] = one.rows[0].best.words
    assert (word.start, word.end, word.confidence) == (0.5, 1.0, calibration.members[0].accuracy)
    assert one.rows[0].best.score == -1.0


def test_good_confidences_stay_as_they_are():
    random = np.random.default_rng(3)
    ballots, references = [], {}
    for i in range(60):
        p = float(random.choice([0.1, 0.9]))
        text = "yes" if random.random() < p else "no"
        ballots.append(Ballot(f"u{i}", (heard(text, p, f"u{i}"),)))
        references[f"u{i}"] = said(f"u{i}", "yes")
    [member] = fit_calibration(["m"], ballots, references).members
    assert member.after.brier <= member.before.brier
    assert (member.curve == AS_GIVEN) == (member.after == member.before)


def test_the_order_of_the_members_does_not_matter():
    ballots, references = corpus(40)
    plain = fit_calibration(["bold", "plain"], ballots, references)
    turned = [Ballot(b.utt_id, b.rows[::-1]) for b in ballots]
    assert fit_calibration(["plain", "bold"], turned, references).of(["bold", "plain"]) == plain
    with pytest.raises(ValueError, match="nobody: has no calibration"):
        plain.of(["nobody"])


def test_the_command_learns_and_applies(tmp_path: Path, capsys):
    ballots, references = corpus(40)
    for m, name in enumerate(("bold", "plain")):
        write_rows(tmp_path / f"{name}.jsonl", [ballot.rows[m] for ballot in ballots])
    write_rows(tmp_path / "dev.jsonl", references.values())
    files = [str(tmp_path / "bold.jsonl"), str(tmp_path / "plain.jsonl")]
    model, out = tmp_path / "c.json", tmp_path / "out"
    assert main([*files, "--ref", str(tmp_path / "dev.jsonl"), "--out", str(model)]) == 0
    assert "plain: 80 words" in capsys.readouterr().out
    assert main([*files, "--model", str(model), "--out", str(out)]) == 0
    rows = list(read_nbest(out / "bold.jsonl"))
    assert [row.utt_id for row in rows] == [ballot.utt_id for ballot in ballots]
    assert main([*files, "--model", str(model), "--out", str(tmp_path)]) == 1
    assert "must be another folder" in capsys.readouterr().err
    assert main([files[0], "--ref", files[0], "--out", str(model)]) == 1
    capsys.readouterr()
    assert main([*files, "--model", str(model), "--ref", str(tmp_path / "dev.jsonl")]) == 0
    assert "bold: ECE 0." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*files, "--model", str(model)])
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ValueError, match="is no calibration"):
        read_calibration(tmp_path / "broken.json")
    with pytest.raises(ValueError, match="has no calibration"):
        calibrate_files([tmp_path / "bold.jsonl"], Calibration(members=()), out)
