"""Members' lists pooled and judged by language models, which have to earn their weight."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.judge import Panel
from fusion.mbr import Settings as MbrSettings
from fusion.mbr import mbr
from fusion.rescore import Rescoring, main, tune_rescoring
from fusion.tuning.mbr_search import MbrSearch
from lm import NGram
from lm.weights import Weights
from manifests import Hypothesis, NBest, read_nbest, write_rows
from scoring.counts import count_errors
from scoring.metric import count_word_errors
from scoring.normalize import normalize_english
from tests.unit.listeners import corpus, dev_of

SUBJECTS, VERBS, THINGS = ("the cat", "a dog", "my bird"), ("saw", "ate"), ("the ball", "a mat")
SENTENCES = [f"{one} {verb} {thing}" for one in SUBJECTS for verb in VERBS for thing in THINGS]


@pytest.fixture(scope="module")
def folder(make_ngram):
    return make_ngram(SENTENCES * 3)


def member(references, rate, seed):
    """Hear some words in a wrong order, and the right text second where it is missed."""
    rng = random.Random(seed)
    rows = []
    for utt_id, row in references.items():
        words = row.text.split()
        mixed = rng.sample(words, len(words)) if rng.random() < rate else words
        texts = dict.fromkeys([" ".join(mixed), row.text, " ".join(rng.sample(words, len(words)))])
        hyps = tuple(Hypothesis(text=t, score=-1.0 - n / 4) for n, t in enumerate(texts))
        rows.append(NBest(utt_id=utt_id, system="s", hyps=hyps))
    return rows


REFERENCES = corpus(60, 6, say=lambda rng: rng.choice(SENTENCES))
MEMBERS = {f"m{n}": member(REFERENCES, 0.4, n) for n in range(2)}


class Noise:
    """A language model that knows nothing, loudly."""

    def __init__(self, seed=""):
        self.seed = seed

    def score_texts(self, texts):
        return [-20.0 * random.Random(f"{self.seed}{text}").random() for text in texts]


def dev():
    return dev_of(REFERENCES, MEMBERS)


def errors(rows):
    heard = {row.utt_id: row.best.text for row in rows}
    return count_word_errors(
        [r.text for r in REFERENCES.values()], map(heard.get, REFERENCES)
    ).errors


def test_without_weight_the_decision_is_that_of_mbr():
    for loss in ("errors", "rate"):
        pooled = list(mbr(dev().ballots, MbrSettings(weights=(1.0, 0.5), loss=loss)))
        again = Panel(pooled, [Noise()], loss).reordered(Weights())
        for before, after in zip(pooled, again, strict=True):
            assert [hyp.text for hyp in after.hyps] == [hyp.text for hyp in before.hyps]
            assert [hyp.score for hyp in after.hyps] == [hyp.score for hyp in before.hyps]
            assert None not in [hyp.lm_score for hyp in after.hyps]


@settings(max_examples=60)
@given(
    lists=st.lists(
        st.dictionaries(st.sampled_from([*SENTENCES[:5], "", "the cat", "two", "2"]),
                        st.floats(-9, 0), min_size=1, max_size=5),
        min_size=1, max_size=4,
    ),
    alpha=st.sampled_from([0.0, 0.4, 1.0]),
    beta=st.sampled_from([-0.5, 0.0, 1.0]),
)  # fmt: skip
def test_the_text_with_the_fewest_expected_errors_is_first(lists, alpha, beta):
    rows = [
        NBest(utt_id=f"u{n}", system="mbr",
              hyps=tuple(Hypothesis(text=t, score=s) for t, s in one.items()))
        for n, one in enumerate(lists)
    ]  # fmt: skip
    panel, weights = Panel(rows, [Noise()]), Weights(alphas=(alpha,), beta=beta)
    chosen = panel.choose(weights).tolist()
    for row, place, ordered in zip(rows, chosen, panel.reordered(weights), strict=True):
        texts = [normalize_english(hyp.text).split() for hyp in row.hyps]
        noise = Noise().score_texts([hyp.text for hyp in row.hyps])
        odds = [
            math.exp(hyp.score + alpha * one + beta * len(words))
            for hyp, one, words in zip(row.hyps, noise, texts, strict=True)
        ]
        risks = [
            sum(share * count_errors(other, mine).errors
                for share, other in zip(odds, texts, strict=True)) / sum(odds)
            for mine in texts
        ]  # fmt: skip
        assert risks[place] == pytest.approx(min(risks), abs=2e-5)
        assert ordered.best.text == row.hyps[place].text
    failed = NBest(utt_id="f", system="mbr", hyps=(Hypothesis(text=""),), error="no vote")
    assert Panel([*rows, failed], [Noise()]).reordered(weights)[-1] == failed


def test_an_ngram_that_helps_held_out_children_is_used(folder):
    tuned, found = tune_rescoring(dev(), [NGram(folder)])
    assert tuned.errors < tuned.errors_without
    assert tuned.weights.alphas[0] > 0
    rows = list(found.apply(dev().ballots))
    assert {row.system for row in rows} == {"rescore"}
    assert errors(rows) < min(errors(rows) for rows in MEMBERS.values()) / 2


@pytest.mark.parametrize("seed", [6, 18])
def test_what_only_fits_dev_is_left_out(seed):
    """The first is lucky with held-out speakers too, but by less than a standard error."""
    noise = Noise(seed)
    fitted = Rescoring(MbrSearch(dev()), [noise]).fit(dev().ballots, REFERENCES).fitted
    assert fitted.weights != Weights()
    tuned, found = tune_rescoring(dev(), [noise])
    assert tuned.weights == Weights()
    assert found.fitted.weights == Weights()


def test_the_command_tunes_and_applies(folder, tmp_path, capsys):
    paths = []
    for name, rows in MEMBERS.items():
        write_rows(tmp_path / f"{name}.jsonl", rows)
        paths.append(str(tmp_path / f"{name}.jsonl"))
    write_rows(tmp_path / "dev.jsonl", REFERENCES.values())
    ref, out, again = (str(tmp_path / name) for name in ("dev.jsonl", "r.jsonl", "again.jsonl"))
    base = ["--lm", str(folder), "--out"]
    assert main([*paths, *base, out, "--tune-on", *paths, "--ref", ref]) == 0
    kept = str(tmp_path / "r.weights.json")
    # Members by name: their order does not matter.
    assert main([*paths[::-1], *base, again, "--settings", kept]) == 0
    first, second = (
        [(row.utt_id, row.best.text) for row in read_nbest(tmp_path / name)]
        for name in ("r.jsonl", "again.jsonl")
    )
    assert sorted(first) == sorted(second)
    capsys.readouterr()
    (tmp_path / "bad.json").write_text('{"members": 3}')
    assert main([paths[0], *base, again, "--settings", kept]) == 1
    assert main([*paths, *base, again, "--settings", str(tmp_path / "bad.json")]) == 1
    assert main([*paths, *base, again, "--tune-on", paths[0], "--ref", ref]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["fusion.rescore"] * 3
    with pytest.raises(SystemExit, match="2"):
        main([*paths, *base, out])
