"""Tuning on dev: what helps is found, what does not is left out, luck is not taken for skill."""

import dataclasses
import json
import random
import re

import msgspec
import numpy as np
import pytest

from fusion import apply as apply_command
from fusion import tune as tune_command
from fusion.apply import apply
from fusion.calibration import fit_calibration
from fusion.candidates import batches, candidate_errors
from fusion.mbr import ListModel, Settings, features
from fusion.pool import Ballot
from fusion.tune import choose, tune
from fusion.tuning.climb import Climb, development
from fusion.tuning.committee import committee, plain
from fusion.tuning.list_model import fit_list_model, least_wrong
from fusion.tuning.mbr_search import MbrSearch
from fusion.tuning.methods import KINDS, Alone, learners
from fusion.tuning.rover_search import Booth, Point, RoverSearch
from fusion.tuning.subset import Subset
from fusion.tuning.tuned import Tuned, model_path, read_tuned, write_tuned
from manifests import Hypothesis, NBest, Utterance, read_nbest, write_rows

SENTENCE = "the a cat dog bird house ran saw big red my goed sat on under tree ball"
WORDS = SENTENCE.split()


def corpus(utterances=80, speakers=8, seed=1):
    """Sentences of several speakers."""
    rng = random.Random(seed)
    return {
        f"u{n:03}": Utterance(
            utt_id=f"u{n:03}",
            audio_filepath="x.flac",
            duration=2.0,
            text=" ".join(rng.choices(WORDS, k=rng.randint(2, 7))),
            speaker=f"s{n % speakers}",
        )
        for n in range(utterances)
    }


def listener(references, rate, seed):
    """A member that hears each word wrong with probability ``rate``, and doubts what is wrong."""
    rng = random.Random(seed)
    rows = []
    for utt_id, row in references.items():
        words = row.text.split()
        heard = [w if rng.random() > rate else rng.choice(WORDS) for w in words]
        wrong = sum(a != b for a, b in zip(words, heard, strict=True))
        hyps = [Hypothesis(text=" ".join(heard), score=-0.5 - wrong)]
        for _ in range(2):
            other = [w if rng.random() > rate else rng.choice(WORDS) for w in heard]
            hyps.append(Hypothesis(text=" ".join(other), score=hyps[-1].score - 1.0))
        rows.append(NBest(utt_id=utt_id, system="s", hyps=tuple(hyps)))
    return rows


def dev_of(references, members):
    ballots = [Ballot(rows[0].utt_id, rows) for rows in zip(*members.values(), strict=True)]
    return development(tuple(members), ballots, references)


REFERENCES = corpus()
MEMBERS = {f"m{n}": listener(REFERENCES, 0.25, n) for n in range(3)}


@pytest.mark.parametrize("method", ["mbr", "nist", "rover"])
def test_members_that_err_apart_are_combined(method):
    tuned, report, rows = tune(dev_of(REFERENCES, MEMBERS), [method])
    member, fused = report.methods
    assert report.chosen == tuned.method == method
    assert len(tuned.members) == 3
    assert fused.wer < 0.75 * member.wer
    assert report.wer == pytest.approx(fused.wer)
    assert [row.utt_id for row in rows] == list(REFERENCES)
    assert member.wer_fitted == report.oracle.members[tuned.ranking[0]] / report.words


def test_what_does_not_help_is_not_asked():
    members = {"good": listener(REFERENCES, 0.1, 1), "bad": listener(REFERENCES, 0.9, 2)}
    tuned, report, _ = tune(dev_of(REFERENCES, members))
    assert report.chosen == "member"
    assert tuned.members == ("good",)
    assert tuned.ranking == ("good", "bad")


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


def test_the_committee_is_the_vote_of_its_parts(tmp_path):
    references = corpus(utterances=30, speakers=6)
    dev = dev_of(references, {f"m{n}": listener(references, 0.3, n) for n in range(3)})
    _, report, _ = tune(dev, ["mbr", "rover", "learned", "committee"])
    figures = {one.method: one for one in report.methods}
    assert figures["committee"].wer < figures["member"].wer
    parts = {name: KINDS[name].learner(dev) for name in ("mbr", "rover", "learned")}
    fitted = {name: part.fit(dev.ballots, references) for name, part in parts.items()}
    together = committee(list(fitted.items()))
    alone = {name: [r.best.text for r in one.apply(dev.ballots)] for name, one in fitted.items()}
    for n, row in enumerate(together.apply(dev.ballots)):
        said = [alone[name][n] for name in parts]
        if len(set(said)) < 3:  # two agree
            assert row.best.text == max(set(said), key=said.count)
    # What was tried from its parts is what is fitted when it is asked for alone.
    _, alone_report, _ = tune(dev, ["committee"])
    assert alone_report.methods[-1].wer == figures["committee"].wer
    path = tmp_path / "tuned.yaml"
    write_tuned(path, Tuned(method="committee", members=dev.members, ranking=(),
                            settings=plain(together.fitted)))  # fmt: skip
    assert list(read_tuned(path).model().apply(dev.ballots)) == list(together.apply(dev.ballots))


def test_a_method_that_can_learn_nothing_is_left_out(caplog):
    right = listener(REFERENCES, 0.0, 1)
    ballots = [Ballot(row.utt_id, (row,)) for row in right]
    _, report, _ = tune(development(("a",), ballots, REFERENCES), ["arcs"])
    assert [figures.method for figures in report.methods] == ["member"]
    assert "arcs is left out: the members never disagree" in caplog.text


def test_a_copy_of_a_member_adds_nothing():
    members = {"a": MEMBERS["m0"], "b": MEMBERS["m0"]}
    tuned, _, _ = tune(dev_of(REFERENCES, members), ["mbr"])
    assert tuned.method == "member"


def test_a_method_never_sees_the_speaker_that_it_is_judged_on(monkeypatch):
    seen = []

    class Spy:
        def __init__(self, dev):
            self.dev = dev

        def fit(self, ballots, references):
            speakers = {references[b.utt_id].speaker for b in ballots}
            return Subset((0,), _Watched(speakers))

    class _Watched:
        def __init__(self, fitted_on):
            self.fitted_on = fitted_on

        def apply(self, ballots, manifest):
            for ballot in ballots:
                row = manifest[ballot.utt_id]
                seen.append((row.speaker in self.fitted_on, row.text))
                yield ballot.rows[0]

    monkeypatch.setitem(KINDS, "mbr", dataclasses.replace(KINDS["mbr"], learner=Spy))
    dev = dev_of(REFERENCES, MEMBERS)
    tune_command._try(["mbr"], dev)
    held_out = seen[: len(dev.ballots)]
    assert not any(known or text is not None for known, text in held_out)


def test_the_simplest_of_those_that_are_not_surely_worse_is_chosen():
    dev = dev_of(REFERENCES, MEMBERS)
    everybody = np.ones(len(dev.ballots), dtype=bool)
    base = np.full(len(dev.ballots), 2)

    def trial(method, saved):
        return tune_command.Trial(method, [], base - saved, Subset((0,), Alone()), 0, 0.0)

    per_speaker = dev.speakers
    steady = (per_speaker >= 0).astype(int)  # every speaker gains as much
    lucky = np.select([per_speaker == 0, per_speaker == 1], [5, -4], 0)  # one gains, one loses
    member = trial("member", 0 * base)
    assert choose([member, trial("mbr", steady)], dev, everybody).method == "mbr"
    assert choose([member, trial("mbr", lucky)], dev, everybody).method == "member"


def test_steps_need_more_than_luck_and_simpler_is_free():
    dev = dev_of(REFERENCES, MEMBERS)
    everybody = np.ones(len(dev.ballots), dtype=bool)
    base = np.full(len(dev.ballots), 5)
    lucky = np.where(np.arange(len(base)) == 3, 4, 5)  # one error in all
    table = {0: base, 1: lucky, 2: base - 1}

    def best(start, around, complexity):
        climb = Climb(dev, table.__getitem__, lambda _: around, complexity, step=2.0)
        return climb.best([start], everybody)

    assert best(0, [1], float) == 0
    assert best(0, [1, 2], float) == 2
    assert best(1, [0], float) == 1
    assert best(0, [1], lambda settings: -settings) == 1


def test_one_speaker_proves_nothing():
    references = corpus(utterances=12, speakers=1)
    dev = dev_of(references, {n: listener(references, 0.3, s) for s, n in enumerate("ab")})
    only = np.zeros(len(dev.ballots), dtype=bool)
    only[0] = True
    assert dev.standard_error(np.ones(len(dev.ballots), dtype=np.int64), only) == float("inf")


def test_list_models_say_what_the_scores_are_worth():
    rng = np.random.default_rng(1)
    count, truth = 4000, 0.5
    score = rng.normal(0, 3, (count, 4))
    likelihood = np.exp(truth * score)
    share = likelihood / likelihood.sum(axis=1, keepdims=True)
    chosen = (share.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
    found = fit_list_model(
        np.stack([score, np.full_like(score, np.nan), np.full_like(score, 3.0), score * 0]),
        np.arange(4) == chosen[:, None],
    )
    assert found.score == pytest.approx(truth, rel=0.1)
    assert found.lm_score == found.words == found.first == 0


def test_lists_that_say_nothing_leave_the_model_as_it_is():
    rows = [NBest(utt_id="u", system="s", hyps=(Hypothesis(text="a"), Hypothesis(text="b")))]
    (candidates,) = batches([Ballot("u", tuple(rows))])
    right = least_wrong(candidates, candidate_errors(candidates, ["a"]))
    assert right.tolist() == [[[True, False]]]
    assert fit_list_model(features(candidates)[:, :, 0], right[:, 0]) == ListModel()


def test_what_was_searched_is_what_is_applied():
    dev = dev_of(REFERENCES, MEMBERS)
    search = MbrSearch(dev)
    fitted = search.fit(dev.ballots, dev.references)
    expected = search._errors(fitted.fitted)
    assert fitted.members == (0, 1, 2)
    assert dev.errors_of(list(fitted.apply(dev.ballots))).tolist() == expected.tolist()


def test_the_voting_that_was_searched_is_that_of_rover():
    dev = dev_of(REFERENCES, MEMBERS)
    search = RoverSearch(dev)
    everybody = np.ones(len(dev.ballots), dtype=bool)
    models = search._lists.models(everybody)
    calibration = fit_calibration(dev.members, dev.ballots, dev.references)
    booth = Booth(dev, search._groups, search._lists.posteriors(models), calibration, search._tally)
    for point in (
        Point(weights=(1.0, 1.1, 1.2)),
        Point(weights=(1.0, 1.1, 1.2), nbest=False),
        Point(weights=(1.0, 2.1, 0.6), agreement=2),
        Point(weights=(1.0, 1.1, 1.2), spelling=0.5),
        Point(weights=(1.0, 1.1, 1.2), alpha=0.5),
        Point(weights=(1.0, 1.1, 1.2), alpha=0.25, null=(0.25, 0.3, 0.9)),
    ):
        applied = search.subset(point, models, calibration)
        found = dev.errors_of(list(applied.apply(dev.ballots)))
        searched = booth.errors(point)
        # The networks may differ a little: see the module. Weights that leave no ties.
        assert (found == searched).mean() > 0.93


def test_a_tuned_file_comes_back_as_it_was(tmp_path):
    path = tmp_path / "tuned.yaml"
    small = plain(Settings(lists=(ListModel(score=1e-5),), weights=(1.0,)))
    for settings in (small, small | {"lists": small["lists"] * 100, "weights": [1.0] * 100}):
        tuned = Tuned(method="mbr", members=("a",), ranking=("a", "b"), settings=settings)
        write_tuned(path, tuned)
        assert read_tuned(path) == tuned
        assert isinstance(read_tuned(path).model(), Settings)
    assert model_path(path).exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "Expected `object`"),
        ("a: [", "is no file of fusion.tune"),
        ("{method: vote, members: [], ranking: [], settings: {}}", "method is 'vote', must be one"),
        ("{method: mbr, members: [], ranking: [], settings: {x: 1}}", "settings of mbr: "),
    ],
)
def test_a_bad_tuned_file_is_one_line(tmp_path, capsys, text, message):
    path = tmp_path / "tuned.yaml"
    path.write_text(text)
    out = str(tmp_path / "out.jsonl")
    assert apply_command.main([str(path), "--hyp", str(tmp_path), "--out", out]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_where_nobody_asked_has_a_result_the_best_other_stands_in():
    def row(text, error=None):
        return NBest(utt_id="u", system="s", hyps=(Hypothesis(text=text),), error=error)

    asked = Subset((0,), Alone())
    failed, other = row("", error="damaged"), row("hello")
    (found,) = apply(asked, [Ballot("u", (failed, failed, other))])
    assert (found.best.text, found.error, found.system) == ("hello", None, "member")
    (found,) = apply(asked, [Ballot("u", (failed, None))])
    assert found.error is not None


def test_the_commands(tmp_path, capsys):
    hyp = tmp_path / "hyp"
    for name, rows in MEMBERS.items():
        write_rows(hyp / f"{name}.jsonl", rows)
    ref = tmp_path / "dev.jsonl"
    write_rows(ref, REFERENCES.values())
    out, held = tmp_path / "tuned.yaml", tmp_path / "fused.jsonl"
    files = [str(hyp / f"{name}.jsonl") for name in MEMBERS]
    command = ["--ref", str(ref), "--out", str(out), "--held-out", str(held), "--methods", "mbr"]
    assert tune_command.main([*files, *command]) == 0
    assert "chosen: mbr of m0, m1, m2" in capsys.readouterr().out
    first = out.read_bytes(), held.read_bytes()
    assert tune_command.main([*files[::-1], *command]) == 0
    assert (out.read_bytes(), held.read_bytes()) == first  # whoever is named first
    report = json.loads(out.with_suffix(".json").read_text())
    assert report["chosen"] == "mbr"
    assert "| **mbr**" in out.with_suffix(".md").read_text()

    fused = tmp_path / "test.jsonl"
    assert apply_command.main([str(out), "--hyp", str(hyp), "--out", str(fused)]) == 0
    rows = list(read_nbest(fused))
    tuned = read_tuned(out)
    ballots = [Ballot(r[0].utt_id, r) for r in zip(*MEMBERS.values(), strict=True)]
    assert tuned.members == ("m0", "m1", "m2")
    assert rows == list(tuned.model().apply(ballots))
    capsys.readouterr()
    (hyp / "m1.jsonl").unlink()
    assert apply_command.main([str(out), "--hyp", str(hyp), "--out", str(fused)]) == 1
    assert "has no m1.jsonl" in capsys.readouterr().err
    assert tune_command.main([*files[:1], *command[:-1], "vote"]) == 1
    assert "method is 'vote', must be one of: member" in capsys.readouterr().err
