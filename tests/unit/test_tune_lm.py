"""Tuning with language models: asked where they help, and only there."""

import dataclasses
import random
import re

import msgspec
import pytest

from fusion.pool import Ballot
from fusion.tune import tune
from fusion.tuning.climb import development
from fusion.tuning.methods import learners
from fusion.tuning.rover_search import RoverSearch
from fusion.tuning.subset import Subset
from fusion.tuning.tuned import read_tuned, write_tuned
from manifests import Hypothesis, NBest
from tests.unit.listeners import MEMBERS, REFERENCES, WORDS, corpus, dev_of, listener


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """An n-gram that knows that of two words that sound alike, cat and kat, one is never said."""
    unigrams = "".join(f"-1.3\t{word}\t0\n" for word in WORDS)
    lm = tmp_path_factory.mktemp("lm") / "lm.arpa"
    lm.write_text(
        f"\\data\\\nngram 1={len(WORDS) + 4}\nngram 2=1\n\n"
        f"\\1-grams:\n-9\t<unk>\n-9\t<s>\t0\n-1\t</s>\n{unigrams}-6\tkat\t0\n\n"
        "\\2-grams:\n-1.3\t<s> the\n\n\\end\\\n"
    )
    return lm


def test_a_language_model_is_asked_where_it_helps(lm, tmp_path):
    references = corpus()

    def unsure(utt_id):
        text = references[utt_id].text
        texts = dict.fromkeys([text.replace("cat", "kat"), text])
        order = sorted(texts, reverse=int(utt_id[1:]) % 3 == 0)  # neither order nor score tells
        hyps = tuple(Hypothesis(text=one, score=-1.0) for one in order)
        return NBest(utt_id=utt_id, system="s", hyps=hyps)

    ballots = [Ballot(utt_id, (unsure(utt_id),)) for utt_id in references]
    dev = development(("a",), ballots, references, [str(lm)])
    tuned, report, _ = tune(dev, ["mbr", "mbr+lm"])
    assert tuned.method == "mbr+lm"
    assert report.wer == 0
    assert tuned.lms == (str(lm),)
    assert tuned.settings["weights"]["alphas"][0] > 0
    write_tuned(tmp_path / "tuned.yaml", tuned)
    rows = read_tuned(tmp_path / "tuned.yaml").model().apply(ballots)
    assert [row.best.text for row in rows] == [row.text for row in references.values()]
    # Nobody named a language model: the method is not tried.
    _, report, _ = tune(development(("a",), ballots, references), ["mbr", "mbr+lm"])
    assert [figures.method for figures in report.methods] == ["member", "mbr"]


def test_a_language_model_chooses_the_way_where_the_votes_are_wrong(lm, tmp_path):
    rng = random.Random(4)
    references = {
        utt_id: msgspec.structs.replace(row, text=row.text.replace("dog", "cat"))
        for utt_id, row in corpus(utterances=48).items()
    }

    def half_deaf(row):
        text = re.sub("cat|dog", lambda _: rng.choice(["cat", "kat"]), row.best.text)
        return NBest(utt_id=row.utt_id, system="s", hyps=(Hypothesis(text=text),))

    members = {f"m{n}": [half_deaf(row) for row in listener(references, 0.1, n)] for n in range(3)}
    dev = dataclasses.replace(dev_of(references, members), lms=(str(lm),))
    tuned, report, _ = tune(dev, ["rover", "rover+lm"])
    figures = {one.method: one.wer for one in report.methods}
    assert report.chosen == tuned.method == "rover+lm"
    assert figures["rover+lm"] < figures["rover"]
    write_tuned(tmp_path / "tuned.yaml", tuned)
    silent = NBest(utt_id="x", system="a", hyps=(Hypothesis(text=""),), error="damaged")
    asked = [dev.ballots[0], Ballot("x", (silent,) * 3), *dev.ballots[1:]]
    places = tuple(dev.members.index(name) for name in tuned.members)
    found = list(Subset(places, read_tuned(tmp_path / "tuned.yaml").model()).apply(asked))
    assert [row.utt_id for row in found] == [ballot.utt_id for ballot in asked]
    assert [n for n, row in enumerate(found) if row.error is not None] == [1]
    assert max(len(row.hyps) for row in found) > 1  # the alternatives


def test_a_language_model_that_does_not_help_leaves_the_votes_as_they_are(lm):
    dev = dataclasses.replace(dev_of(REFERENCES, MEMBERS), lms=(str(lm),))
    rover, with_lm = learners(["rover", "rover+lm"], dev).values()
    voted, judged = (one.fit(dev.ballots, REFERENCES) for one in (rover, with_lm))
    assert judged.fitted.weights.neutral
    assert judged.fitted.rover == voted.fitted
    assert list(judged.apply(dev.ballots)) == list(voted.apply(dev.ballots))


def test_what_a_method_builds_on_is_searched_once(lm, monkeypatch):
    searched = []
    search = RoverSearch._search
    monkeypatch.setattr(
        RoverSearch, "_search", lambda self, *rest: searched.append(1) or search(self, *rest)
    )
    references = corpus(utterances=20)
    members = {f"m{n}": listener(references, 0.25, n) for n in range(2)}
    dev = dataclasses.replace(dev_of(references, members), lms=(str(lm),))
    for methods in (["rover", "rover+lm"], ["rover+lm"]):
        searched.clear()
        _, report, _ = tune(dev, methods)
        assert len(searched) == 6  # five folds and all
        assert [figures.method for figures in report.methods] == ["member", *methods]
