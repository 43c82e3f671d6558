"""Rescoring repairs what the n-gram can tell, never harms dev, and keeps every row."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm import NGram
from lm.ngram import words_of
from lm.rescore import main, rescore, rescore_file
from lm.weights import Weights, read_references, tune, word_errors
from manifests import Hypothesis, NBest, Utterance, read_nbest, write_rows

SENTENCES = [
    "the cat sat on the mat",
    "the dog sat on the cat",
    "a dog goed home",
    "the cat goed home",
    "i like the dog's mat",
]


@pytest.fixture(scope="module")
def folder(make_ngram):
    return make_ngram(SENTENCES)


@pytest.fixture(scope="module")
def ngram(folder):
    return NGram(folder)


def nbest(utt_id, *hyps):
    """Make a row of (text, score) pairs."""
    rows = tuple(Hypothesis(text=text, score=score) for text, score in hyps)
    return NBest(utt_id=utt_id, system="s", hyps=rows)


# The recogniser slightly prefers a wrong word; the n-gram knows better.
CONFUSED = [
    nbest("a", ("The cat sad on the mat.", -1.0), ("The cat sat on the mat.", -1.5)),
    nbest("b", ("a dock goed home", -2.0), ("a dog code home", -2.1), ("a dog goed home", -2.4)),
    nbest("c", ("the cat goed home", -1.0), ("the hat goed home", -3.0)),
]
REFERENCES = {"a": "the cat sat on the mat", "b": "A dog goed home.", "c": "the cat goed home"}


def test_tuned_rescoring_repairs_dev(ngram):
    tuned = tune(CONFUSED, REFERENCES, [ngram])
    assert (tuned.errors_before, tuned.errors, tuned.words) == (2, 0, 14)
    assert tuned.weights.alphas > (0,)
    best = [row.best.text for row in rescore(CONFUSED, [ngram], tuned.weights)]
    assert best == ["The cat sat on the mat.", "a dog goed home", "the cat goed home"]


def test_order_is_by_total_and_score_is_kept(ngram):
    weights = Weights(alphas=(0.4,), beta=-0.3)
    for before, after in zip(CONFUSED, rescore(CONFUSED, [ngram], weights), strict=True):
        totals = [
            hyp.score
            + weights.alphas[0] * ngram.score_text(hyp.text)
            + weights.beta * len(hyp.text.split())
            for hyp in after.hyps
        ]
        assert totals == sorted(totals, reverse=True)
        kept = {(hyp.text, hyp.score) for hyp in after.hyps}
        assert kept == {(hyp.text, hyp.score) for hyp in before.hyps}
        for hyp in after.hyps:
            assert hyp.lm_score == ngram.score_text(hyp.text)


TEXTS = st.sampled_from(["", "the cat", "the cat sat", "a dog goed home", "dog the", "zebra"])
LISTS = st.lists(
    st.lists(st.tuples(TEXTS, st.floats(-30, 0)), min_size=1, max_size=5), min_size=1, max_size=6
)


@settings(max_examples=60, deadline=None)
@given(lists=LISTS, wanted=st.lists(TEXTS, min_size=6, max_size=6), guard=st.booleans())
def test_tuning_never_makes_dev_worse_and_tells_the_truth(ngram, lists, wanted, guard):
    rows = [nbest(f"u{n}", *hyps) for n, hyps in enumerate(lists)]
    references = {f"u{n}": text for n, text in enumerate(wanted)}

    def count(rows):
        return sum(word_errors(references[row.utt_id], row.best.text) for row in rows)

    tuned = tune(rows, references, [ngram], empty_guard=guard)
    assert tuned.errors_before == count(rows)
    assert tuned.errors <= tuned.errors_before
    rescored = list(rescore(rows, [ngram], tuned.weights, empty_guard=guard))
    assert tuned.errors == count(rescored)
    for before, after in zip(rows, rescored, strict=True):
        assert sorted(hyp.text for hyp in before.hyps) == sorted(hyp.text for hyp in after.hyps)
        if guard and before.best.text == "":
            assert after.best.text == ""


def test_zero_weights_keep_the_decoded_order(ngram):
    """The decoder may have ranked by score per token; its order is not that of the sums."""
    row = nbest("a", ("the cat sat on the mat", -3.0), ("cat", -2.0))
    (same,) = rescore([row], [ngram], Weights())
    assert [hyp.text for hyp in same.hyps] == ["the cat sat on the mat", "cat"]
    assert same.best.lm_score is not None


class Fixed:
    """A language model of a few known texts."""

    def __init__(self, **scores):
        self.scores = scores

    def score_texts(self, texts):
        return [self.scores.get(text, -9.0) for text in texts]


def test_two_models_count_by_their_weights():
    row = nbest("a", ("x", -1.0), ("y", -1.5), ("z", -2.0))
    one, other = Fixed(x=-4.0, y=-2.0, z=-4.0), Fixed(x=-3.0, y=-3.0, z=-1.0)
    (ranked,) = rescore([row], [one, other], Weights(alphas=(1.0, 0.25)))
    assert [hyp.text for hyp in ranked.hyps] == ["y", "x", "z"]
    assert ranked.best.lm_score == pytest.approx((-2.0 - 0.25 * 3.0) / 1.25)
    (ranked,) = rescore([row], [one, other], Weights(alphas=(0.25, 1.0)))
    assert [hyp.text for hyp in ranked.hyps] == ["z", "x", "y"]
    (same,) = rescore([row], [one, other], Weights(alphas=(0.0, 0.0)))
    assert [(hyp.text, hyp.lm_score) for hyp in same.hyps] == [
        ("x", -3.5),
        ("y", -2.5),
        ("z", -2.5),
    ]
    with pytest.raises(ValueError, match=r"1 alphas for 2 models"):
        list(rescore([row], [one, other], Weights(alphas=(1.0,))))


def test_each_model_is_given_what_it_earns():
    """One model knows one confusion, another the other, the third knows nothing."""
    rows = [
        nbest("a", ("x", -1.0), ("y", -2.0)),
        nbest("b", ("u", -1.0), ("v", -2.0)),
        nbest("c", ("y", -1.0), ("u", -2.0)),
    ]
    references = {"a": "y", "b": "v", "c": "y"}
    knows_y = Fixed(x=-9.0, y=-3.0, u=-6.0, v=-6.0)
    knows_v = Fixed(x=-6.0, y=-6.0, u=-9.0, v=-3.0)
    misled = Fixed(x=-1.0, y=-9.0, u=-1.0, v=-9.0)
    for order in ([knows_y, knows_v, misled], [misled, knows_v, knows_y]):
        tuned = tune(rows, references, order)
        assert (tuned.errors_before, tuned.errors) == (2, 0)
        earned = dict(zip(map(id, order), tuned.weights.alphas, strict=True))
        assert earned[id(misled)] == 0
        assert min(earned[id(knows_y)], earned[id(knows_v)]) > 0
    alone = tune(rows, references, [misled])
    assert (alone.errors, alone.weights) == (2, Weights())


def test_equal_totals_keep_their_order(ngram):
    row = nbest("a", ("The cat.", -1.0), ("the cat", -1.0), ("THE CAT", -1.0))
    (same,) = rescore([row], [ngram], Weights(alphas=(1.0,)))
    assert [hyp.text for hyp in same.hyps] == ["The cat.", "the cat", "THE CAT"]


def test_silence_and_failures(ngram):
    silent = nbest("a", ("", -1.0), ("the cat sat on the mat", -1.1))
    gated = NBest(utt_id="b", system="s", hyps=(Hypothesis(text=""),))
    failed = NBest(utt_id="c", system="s", hyps=(Hypothesis(text=""),), error="no such file")
    weights = Weights(beta=5.0)
    open_, one, broken = rescore([silent, gated, failed], [ngram], weights)
    assert open_.best.text == "the cat sat on the mat"
    assert one.best == Hypothesis(text="", lm_score=ngram.score_text(""))
    assert broken == failed
    (guarded,) = rescore([silent], [ngram], weights, empty_guard=True)
    assert guarded.best.text == ""
    tuned = tune([silent, gated, failed], {"a": "", "b": "", "c": "dog"}, [ngram])
    assert (tuned.errors_before, tuned.errors) == (1, 1)


def test_another_cost_function(ngram):
    """With every word wanted wrong, tuning must move away from the references."""
    tuned = tune(CONFUSED, REFERENCES, [ngram], errors=lambda ref, hyp: -word_errors(ref, hyp))
    assert tuned.errors <= tuned.errors_before == -2


def test_errors_name_the_row(ngram):
    scoreless = NBest(
        utt_id="a", system="s", hyps=(Hypothesis(text="x", score=-1.0), Hypothesis(text="y"))
    )
    with pytest.raises(ValueError, match=r"a: 'y' of s has no score, must have one"):
        list(rescore([scoreless], [ngram], Weights(alphas=(1.0,))))
    with pytest.raises(ValueError, match=r"c has no reference text"):
        tune(CONFUSED, {"a": "", "b": ""}, [ngram])
    with pytest.raises(ValueError, match=r"a comes twice"):
        tune([CONFUSED[0], CONFUSED[0]], REFERENCES, [ngram])
    with pytest.raises(ValueError, match=r"no rows to tune on"):
        tune([], REFERENCES, [ngram])


@pytest.fixture
def files(tmp_path):
    write_rows(tmp_path / "h.jsonl", CONFUSED)
    write_rows(
        tmp_path / "dev.jsonl",
        [
            Utterance(utt_id=utt_id, audio_filepath="x.wav", duration=1.0, text=text)
            for utt_id, text in {**REFERENCES, "more": "not decoded"}.items()
        ],
    )
    return tmp_path


def test_the_command_tunes_and_keeps_its_weights(files, folder):
    out = files / "r.jsonl"
    hyp, ref = str(files / "h.jsonl"), str(files / "dev.jsonl")
    command = [hyp, "--lm", str(folder), "--out", str(out), "--tune-on", hyp, "--ref", ref]
    assert main(command) == 0
    assert [row.best.text for row in read_nbest(out)][1] == "a dog goed home"
    kept = json.loads((files / "r.weights.json").read_text())
    assert (kept["wer_before"], kept["wer"]) == (2 / 14, 0.0)
    assert kept["weights"]["alphas"][0] > 0
    again = rescore_file(
        files / "h.jsonl",
        [folder],
        files / "again.jsonl",
        weights=msgspec.convert(kept["weights"], Weights),
    )
    assert again == msgspec.convert(kept["weights"], Weights)
    assert (files / "again.jsonl").read_bytes() == out.read_bytes()
    assert read_references(files / "dev.jsonl")["b"] == "A dog goed home."


def test_wrong_calls_are_one_line(files, folder, capsys):
    hyp, out = str(files / "h.jsonl"), str(files / "r.jsonl")
    base = [hyp, "--lm", str(folder), "--out", out]
    for wrong in ([], ["--tune-on", hyp], ["--alpha", "1", "--tune-on", hyp, "--ref", hyp]):
        with pytest.raises(SystemExit, match="2"):
            main([*base, *wrong])
    with pytest.raises(SystemExit, match="2"):
        main([*base, "--alpha", "1", "2"])
    capsys.readouterr()
    assert main([hyp, "--lm", str(files / "none"), "--out", out, "--alpha", "1"]) == 1
    (files / "bad.jsonl").write_text('{"utt_id":"a","system":"s","hyps":[]}\n')
    bad = str(files / "bad.jsonl")
    assert main([bad, "--lm", str(folder), "--out", out, "--alpha", "1"]) == 1
    ref = str(files / "dev.jsonl")
    assert main([*base, "--tune-on", bad, "--ref", ref]) == 1
    assert main([*base, "--tune-on", hyp, "--ref", bad]) == 1
    two = '"hyps":[{"text":"a"},{"text":"b"}]'
    (files / "unscored.jsonl").write_text(f'{{"utt_id":"a","system":"s",{two}}}\n')
    unscored = str(files / "unscored.jsonl")
    assert main([unscored, "--lm", str(folder), "--out", out, "--alpha", "1"]) == 1
    assert main([*base, "--tune-on", unscored, "--ref", ref]) == 1
    for option, value in (("--alpha", "nan"), ("--alpha", "inf"), ("--beta", "nan")):
        assert main([*base, option, value]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lm.rescore")]
    assert len(lines) == 9
    assert all("bad.jsonl:1: " in line for line in lines[1:4])
    assert all("unscored.jsonl: a: 'a' of s has no score" in line for line in lines[4:6])
    assert all(line.endswith("must be finite") for line in lines[6:])
    assert not (files / "r.jsonl").exists()


def test_word_errors_ignore_case_and_punctuation():
    assert word_errors("He goed home!", "he  Goed, home") == 0
    assert word_errors("", "a b") == 2
    assert word_errors("I a", "") == 2
    assert words_of("I") == ("i",)
