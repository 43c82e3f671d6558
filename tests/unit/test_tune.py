"""Tuning on dev: what helps is found, what does not is left out, luck is not taken for skill."""

import dataclasses
import json

import numpy as np
import pytest

from fusion import apply as apply_command
from fusion import tune as tune_command
from fusion.apply import apply
from fusion.mbr import ListModel, Settings
from fusion.pool import Ballot
from fusion.tune import choose, tune
from fusion.tuning.climb import development
from fusion.tuning.committee import committee, plain
from fusion.tuning.methods import KINDS, Alone
from fusion.tuning.subset import Subset
from fusion.tuning.tuned import Tuned, model_path, read_tuned, write_tuned
from manifests import Hypothesis, NBest, read_nbest, write_rows
from tests.unit.listeners import MEMBERS, REFERENCES, corpus, dev_of, listener


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


def test_one_speaker_proves_nothing():
    references = corpus(utterances=12, speakers=1)
    dev = dev_of(references, {n: listener(references, 0.3, s) for s, n in enumerate("ab")})
    only = np.zeros(len(dev.ballots), dtype=bool)
    only[0] = True
    assert dev.standard_error(np.ones(len(dev.ballots), dtype=np.int64), only) == float("inf")


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
