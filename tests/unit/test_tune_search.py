"""Tuning's searches: steps that are more than luck; what was searched is what is applied."""

import numpy as np
import pytest

from fusion.calibration import fit_calibration
from fusion.candidates import batches, candidate_errors
from fusion.mbr import ListModel, features
from fusion.pool import Ballot
from fusion.tuning.climb import Climb
from fusion.tuning.list_model import fit_list_model, least_wrong
from fusion.tuning.mbr_search import MbrSearch
from fusion.tuning.rover_booth import Booth, Point
from fusion.tuning.rover_search import RoverSearch
from manifests import Hypothesis, NBest
from tests.unit.listeners import MEMBERS, REFERENCES, dev_of


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
