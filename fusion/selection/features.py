"""What can be seen of a candidate without knowing the truth, as numbers.

A candidate is one text of a ballot (`fusion.candidates`). Features come in two groups: those that
treat all members alike (agreement, lengths, the n-gram, the most and the mean that any member
says), and those of each member by name, which let a ranking learn whom to trust. What is the same
for all candidates of a ballot tells nothing of them and is no feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusion.calibration import Calibration
from fusion.candidates import NO_HYPOTHESIS, Candidates
from fusion.truth import confidences, words_of
from manifests import Word

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fusion.curves import Floats

# Of each member about a candidate; 0 where it does not have the text.
_BY_MEMBER = ("rank", "share", "ln_share", "mean", "least", "ln_words", "distance")
_STRICTNESS = 10.0
_FLOOR = -10.0  # ln of what counts as impossible
SHARED = (
    "words",  # of the candidate
    "empty",  # 1 for silence
    "agree",  # share of the members whose best this is
    "listed",  # share of the members whose list has it
    "risk",  # word errors against the members' best hypotheses, on average
    "list_risk",  # the same against all their hypotheses, weighted by score
    "sound",  # letters that differ from the members' best hypotheses, per letter, on average
    "trusted_risk",  # word errors against the best hypotheses, weighted by how far these agree
    "trusted_sound",
    "nearest",  # word errors against the nearest best hypothesis of another text; 0 if agreed
    "lm",  # ln P of the n-gram, if any list has it: above the mean of the ballot's candidates
    "lm_word",  # the same for each word
    *(f"{what}_{name}" for what in ("mean", "most") for name in _BY_MEMBER[:-1]),
)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """N candidates of B ballots, ballot by ballot, in the order of their texts."""

    values: Floats  # (N, F)
    ballot: NDArray[np.int64]  # (N,), from 0
    place: NDArray[np.int64]  # (N,), which of the ballot's texts

    def __len__(self) -> int:
        return len(self.ballot)


def feature_names(members: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns: those of `SHARED`, then each member's."""
    return (*SHARED, *(f"{what}:{name}" for name in members for what in _BY_MEMBER))


def features(candidates: Candidates, calibration: Calibration) -> Features:
    """Return all features of all candidates; the members are those of ``calibration``."""
    import numpy as np

    counts = np.array([len(texts) for texts in candidates.texts])
    exists = np.arange(candidates.length.shape[1]) < counts[:, None]
    by_member, voted = _by_member(candidates, calibration)
    ballots, widest = candidates.length.shape
    voters = np.maximum(voted.sum(axis=1), 1)[:, None]
    has = by_member[..., 0] > 0
    distance = np.where(voted[:, None, :], by_member[..., -1], 0.0)
    elsewhere = np.where(voted[:, None, :] & (distance > 0), distance, np.inf).min(axis=2)
    words = candidates.length.astype(np.float64)
    sound = _letter_distances(candidates)
    trust = _trust(candidates, sound, voted)
    lm = _lm(candidates)
    said = by_member[..., :-1]
    own = [
        words,
        candidates.length == 0,
        (by_member[..., 0] == 1).sum(axis=2) / voters,
        has.sum(axis=2) / voters,
        distance.sum(axis=2) / voters,
        _list_risk(candidates, voted) / voters,
        sound.sum(axis=2) / voters,
        (distance * trust[:, None, :]).sum(axis=2),
        (sound * trust[:, None, :]).sum(axis=2),
        np.where(np.isinf(elsewhere), 0.0, elsewhere),
        _centred(lm, exists),
        _centred(lm / np.maximum(words, 1), exists),
    ]
    mean = said.sum(axis=2) / np.maximum(has.sum(axis=2), 1)[..., None]
    shared = np.concatenate([np.stack(own, axis=2), mean, said.max(axis=2)], axis=2)
    flat = np.concatenate([shared, by_member.reshape(ballots, widest, -1)], axis=2)
    at, place = np.nonzero(exists)
    return Features(flat[at, place], at, place)


def _by_member(
    candidates: Candidates, calibration: Calibration
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return (B, K, M, 5), what each member says of each candidate, and who voted (B, M)."""
    import numpy as np

    ballots, members, depth = candidates.place.shape
    widest = candidates.length.shape[1]
    found = np.zeros((ballots, widest, members, len(_BY_MEMBER)))
    share = _shares(candidates)
    said = _word_confidences(candidates, calibration)
    found[..., 2] = _FLOOR
    found[..., 5] = _FLOOR
    for h in reversed(range(depth)):  # of two hypotheses with one text the better one stays
        b, m = np.nonzero(candidates.place[:, :, h] != NO_HYPOTHESIS)
        k = candidates.place[b, m, h]
        found[b, k, m, 0] = 1 / (1 + h)
        found[b, k, m, 1] += share[b, m, h]
        found[b, k, m, 2] = np.log(np.maximum(found[b, k, m, 1], np.exp(_FLOOR)))
        found[b, k, m, 3:6] = said[b, m, h]
    b, m = np.nonzero(candidates.place[:, :, 0] != NO_HYPOTHESIS)
    found[b, :, m, -1] = candidates.distance[b, candidates.place[b, m, 0]]
    return found, candidates.place[:, :, 0] != NO_HYPOTHESIS


def _shares(candidates: Candidates) -> Floats:
    """Return each list's softmax of scores, (B, M, H); without scores all is the first's."""
    import numpy as np

    heard = candidates.place != NO_HYPOTHESIS
    scored = np.all(~heard | ~np.isnan(candidates.score), axis=2, keepdims=True)
    first = np.where(np.arange(heard.shape[2]) == 0, 0.0, -np.inf)
    ln = np.where(heard, np.where(scored, candidates.score, first), -np.inf)
    peak = ln.max(axis=2, keepdims=True)
    mass = np.exp(ln - np.where(np.isinf(peak), 0.0, peak))
    return np.asarray(mass / np.maximum(mass.sum(axis=2, keepdims=True), 1e-300))


def _word_confidences(candidates: Candidates, calibration: Calibration) -> Floats:
    """Return the mean, the least and ln of the product of each hypothesis' calibrated confidences.

    Shape (B, M, H, 3); 0 where there are no words.
    """
    import numpy as np

    found = np.zeros((*candidates.place.shape, 3))
    depth = candidates.place.shape[2]
    for m, member in enumerate(calibration.members):
        words: list[Word] = []
        at: list[tuple[int, int]] = []
        counts: list[int] = []
        for b, ballot in enumerate(candidates.ballots):
            for h, hyp in enumerate(ballot.hyps_of(m)[:depth]):
                said = words_of(hyp)
                if said and candidates.place[b, m, h] != NO_HYPOTHESIS:
                    words += said
                    at.append((b, h))
                    counts.append(len(said))
        if not counts:
            continue
        b, h = np.array(at).T
        length = np.array(counts)
        begins = np.cumsum(length) - length
        p = member.calibrate(confidences(words))
        found[b, m, h, 0] = np.add.reduceat(p, begins) / length
        found[b, m, h, 1] = np.minimum.reduceat(p, begins)
        ln = np.add.reduceat(np.log(np.maximum(p, np.exp(_FLOOR))), begins)
        found[b, m, h, 2] = np.maximum(ln, _FLOOR)
    return found


def _list_risk(candidates: Candidates, voted: NDArray[np.bool_]) -> Floats:
    """Return the word errors to be expected against each member's list, summed, (B, K)."""
    import numpy as np

    ballots, _, _ = candidates.place.shape
    widest = candidates.length.shape[1]
    share = np.where(candidates.place != NO_HYPOTHESIS, _shares(candidates), 0.0)
    cell = np.arange(ballots)[:, None, None] * widest + np.maximum(candidates.place, 0)
    mass = np.bincount(cell.ravel(), share.ravel(), ballots * widest).reshape(ballots, widest)
    return np.asarray(np.matmul(candidates.distance, mass[..., None])[..., 0])


def _letter_distances(candidates: Candidates) -> Floats:
    """Return how each text differs in letters from each member's best, (B, K, M), in [0, 1]."""
    import numpy as np
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    ballots, members, _ = candidates.place.shape
    found = np.zeros((ballots, candidates.length.shape[1], members))
    for b, texts in enumerate(candidates.texts):
        if len(texts) > 1:
            each = cdist(texts, texts, scorer=Levenshtein.normalized_distance, dtype=np.float32)
            best = candidates.place[b, :, 0]
            found[b, : len(texts)] = np.where(best == NO_HYPOTHESIS, 0.0, each[:, best])
    return found


def _trust(candidates: Candidates, sound: Floats, voted: NDArray[np.bool_]) -> Floats:
    """Return the weight of each member's best by its likeness to the others', (B, M), sum 1."""
    import numpy as np

    best = np.maximum(candidates.place[:, :, 0], 0)
    between = np.take_along_axis(sound, best[:, :, None], axis=1)  # (B, M, M)
    mean = between.sum(axis=2) / np.maximum(voted.sum(axis=1) - 1, 1)[:, None]
    weight = np.where(voted, np.exp(-_STRICTNESS * mean), 0.0)
    return np.asarray(weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-12))


def _lm(candidates: Candidates) -> Floats:
    """Return the n-gram's ln P of each candidate, (B, K), NaN where no list has it."""
    import numpy as np

    lm = np.full(candidates.length.shape, np.nan)
    b, m, h = np.nonzero((candidates.place != NO_HYPOTHESIS) & ~np.isnan(candidates.lm_score))
    # Texts that the scorer holds for one may differ in writing: the likeliest stands for them.
    np.fmax.at(lm, (b, candidates.place[b, m, h]), candidates.lm_score[b, m, h])
    return lm


def _centred(values: Floats, exists: NDArray[np.bool_]) -> Floats:
    """Return values less their ballot's mean; 0 where unknown."""
    import numpy as np

    known = exists & ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    mean = filled.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.where(known, values - mean[:, None], 0.0)
