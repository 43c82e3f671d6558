"""Minimum Bayes risk: the text with the fewest expected errors, whoever is named first."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.candidates import batches, word_distances
from fusion.mbr import ListModel, Settings, main, mbr
from fusion.pool import NO_VOTE, Ballot
from manifests import Hypothesis, NBest, Word, read_nbest, write_rows
from scoring.counts import count_errors
from scoring.normalize import normalize_english


def row(hyps, utt_id="u", error=None):
    """One member's list, of (text, score) or of (text, score, lm_score)."""
    made = [Hypothesis(text=h[0], score=h[1], lm_score=h[2] if len(h) > 2 else None) for h in hyps]
    return NBest(utt_id=utt_id, system="s", hyps=tuple(made), error=error)


def ballot(*rows, utt_id="u"):
    return Ballot(utt_id, rows)


def best(*rows, **settings):
    (found,) = mbr([ballot(*rows)], Settings(**settings))
    return found.best.text


def test_the_middle_wins_over_the_most_probable():
    # "a b c" is most probable, but "a b d" is one error from everything, "x y" far from all.
    lists = row([("x y", math.log(0.4)), ("a b c", math.log(0.3)), ("a b d", math.log(0.3))])
    assert best(lists) == "a b c"
    assert best(row([("x y", -0.1), ("a b c", -9.0), ("a b d", -9.0)])) == "x y"


def test_a_temperature_decides_how_much_a_list_is_believed():
    sure = row([("one cat", 0.0), ("two dogs", -3.0), ("two cows", -3.0), ("two hens", -3.0)])
    assert best(sure) == "one cat"
    assert best(sure, lists=(ListModel(score=0.01),)) == "two cows"


def test_weights_and_members_that_did_not_vote():
    a, b, c = row([("a", -1)]), row([("b", -1)]), row([("b", -1)])
    assert best(a, b, c) == "b"
    assert best(a, b, c, weights=(3.0, 1.0, 1.0)) == "a"
    assert best(a, None, row([("", None)], error="damaged"), weights=(0.1, 1.0, 1.0)) == "a"
    # All that is left has weight 0: better than nothing.
    assert best(a, None, None, weights=(0.0, 1.0, 1.0)) == "a"
    # What a member of weight 0 proposes can't win, as if it were not there.
    near = row([("a b c", -1), ("a b d", -1)])
    assert best(row([("a b x", -1)]), near, weights=(0.0, 1.0)) == "a b c"


def test_no_vote_is_a_failed_row():
    (found,) = mbr([ballot(None, row([("", None)], error="damaged"))], Settings())
    assert found.error == NO_VOTE
    assert [hyp.text for hyp in found.hyps] == [""]


def test_words_that_the_scorer_makes_equal_are_one_text():
    found = next(
        mbr([ballot(row([("One two, three!", -1)]), row([("123", -1)]), row([("go", -1)]))],
            Settings())
    )  # fmt: skip
    assert found.best.text == "One two, three!"  # as written, not as normalised
    assert len(found.hyps) == 2
    assert found.best.score == pytest.approx(math.log(2 / 3))


def test_silence_is_a_candidate():
    assert best(row([("", -0.1)]), row([("Um", -0.1)]), row([("no", -0.1)])) in ("", "Um")


def test_without_scores_the_first_of_a_list_counts():
    assert best(row([("a", None), ("b", None)]), row([("b", -5), ("a", -1)])) == "a"


def test_lm_scores_count_only_by_alpha_and_only_where_they_are():
    lists = row([("the cat", -1.0, -9.0), ("a cat", -1.5, -2.0)])
    assert best(lists) == "the cat"
    assert best(lists, lists=(ListModel(lm_score=0.5),)) == "a cat"
    without = row([("the cat", -1.0), ("a cat", -1.5)])
    assert best(without, lists=(ListModel(lm_score=0.5),)) == "the cat"
    longer = row([("a", -1.0, -1.0), ("a big dog", -2.0, -1.0)])
    assert best(longer, lists=(ListModel(lm_score=0.1, words=1.0),)) == "a big dog"


def test_being_first_may_count():
    lists = row([("the cat", -2.0), ("a cat", -1.0)])
    assert best(lists) == "a cat"
    assert best(lists, lists=(ListModel(first=3.0),)) == "the cat"


def test_the_loss_may_be_the_rate():
    # Half the mass is one word, which "rate" makes count more than the long text's.
    lists = row([("no", -1.0), ("a b c d", -0.9)])
    assert best(lists) == "a b c d"
    assert best(lists, loss="rate") == "no"


texts = st.lists(st.sampled_from(["a", "b", "one", "two", "um", "colour"]), max_size=4)
lists = st.lists(
    st.tuples(texts.map(" ".join), st.floats(-20, 0, width=16)), min_size=1, max_size=4
).map(row)


def model(weight):
    return ListModel(score=weight, words=weight / 3, first=weight / 2)


@given(st.lists(st.one_of(st.none(), lists), min_size=1, max_size=5), st.randoms())
def test_the_order_of_members_does_not_matter(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    weights = [0.5 + m for m in range(len(rows))]
    settings = Settings(weights=tuple(weights), lists=tuple(map(model, weights)))
    turned = [weights[m] for m in order]
    mixed = Settings(weights=tuple(turned), lists=tuple(map(model, turned)))
    (one,) = mbr([ballot(*rows)], settings)
    (other,) = mbr([ballot(*(rows[m] for m in order))], mixed)
    assert one.best.text == other.best.text
    assert [(h.text, h.score) for h in one.hyps] == [(h.text, h.score) for h in other.hyps]


@given(st.lists(lists, min_size=1, max_size=4))
def test_the_risk_is_that_of_its_definition(rows):
    (found,) = mbr([ballot(*rows)], Settings())
    probability = {}
    for one in rows:
        total = sum(math.exp(h.score) for h in one.hyps)
        for h in one.hyps:
            text = normalize_english(h.text)
            probability[text] = probability.get(text, 0.0) + math.exp(h.score) / total / len(rows)

    def risk(text):
        return sum(
            p * count_errors(other.split(), text.split()).errors
            for other, p in probability.items()
        )  # fmt: skip

    assert risk(normalize_english(found.best.text)) == pytest.approx(
        min(map(risk, probability)), abs=2e-5
    )


@given(st.lists(texts.map(" ".join), min_size=1, max_size=5), texts.map(" ".join))
def test_distances_are_word_errors(some, other):
    expected = [[count_errors(a.split(), b.split()).errors for b in some] for a in some]
    assert word_distances(some, some).tolist() == expected
    assert word_distances((other,), some)[0].tolist() == [
        count_errors(other.split(), b.split()).errors for b in some
    ]


def test_batches_do_not_change_the_answer(monkeypatch):
    ballots = [
        ballot(row([("a b", -1), (f"a {n % 7}", -1.2)]), row([("b", -1)]), utt_id=f"u{n}")
        for n in range(50)
    ]
    plain = list(mbr(ballots, Settings()))
    monkeypatch.setattr("fusion.candidates._CELLS", 40)
    assert len(list(batches(ballots))) > 5
    assert list(mbr(ballots, Settings())) == plain
    assert [found.utt_id for found in plain] == [b.utt_id for b in ballots]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (1.0,)}, "weights: 1 values, must be one for each of 2"),
        ({"weights": (0.0, 0.0)}, "at least one member must count"),
        ({"weights": (1.0, -1.0)}, "must be finite and not negative"),
        ({"lists": (ListModel(score=math.nan),) * 2}, "must be of finite numbers"),
        ({"hypotheses": -1}, "hypotheses is -1, must be >= 0"),
        ({"lists": (ListModel(),)}, "lists: 1 values, must be one for each of 2"),
        ({"weights": (1.0, math.nan)}, "must be finite"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        list(mbr([ballot(row([("a", -1)]), None)], Settings(**settings)))


@pytest.mark.parametrize(
    "option", [["--temperatures", "1"], ["--alpha", "nan"], ["--beta", "inf"], ["--nbest", "-1"]]
)
def test_a_wrong_option_is_named(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["a.jsonl", "b.jsonl", "--out", "x.jsonl", *option])
    assert f"error: {option[0]}" in capsys.readouterr().err


def test_the_command_is_the_call(tmp_path, capsys):
    files = [tmp_path / f"{name}.jsonl" for name in "ab"]
    for n, file in enumerate(files):
        write_rows(file, [row([("a b", -1.0 - n), ("b", -2.0)], utt_id=f"u{i}") for i in range(3)])
    out = tmp_path / "mbr.jsonl"
    assert main([*map(str, files), "--out", str(out), "--weights", "1", "2"]) == 0
    rows = list(read_nbest(out))
    settings = Settings(weights=(1.0, 2.0), lists=(ListModel(),) * 2)
    pooled = [ballot(*(next(iter(read_nbest(f))) for f in files), utt_id="u0")]
    assert msgspec.json.encode(rows[0]) == msgspec.json.encode(next(mbr(pooled, settings)))
    assert main([*map(str, files), "--out", str(out), "--weights", "1"]) == 1
    assert (
        capsys.readouterr().err
        == "fusion.mbr: weights: 1 values, must be one for each of 2 members\n"
    )


def test_whose_words_are_kept_does_not_depend_on_the_order_of_members():
    rows = [
        NBest(
            utt_id="a",
            system="s",
            hyps=(Hypothesis(text="he", words=(Word(text="he", start=at, end=1.0),)),),
        )
        for at in (0.1, 0.5)
    ]
    one, other = (
        next(mbr([Ballot("a", order)], Settings())) for order in (tuple(rows), tuple(rows[::-1]))
    )
    assert one.best.words is not None
    assert one == other
