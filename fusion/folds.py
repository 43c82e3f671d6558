"""What is fitted on dev and applied to test, and how to tell on dev whether it helps.

Every way to combine that learns anything is a `Method`: ``fit`` on dev gives a `Fitted`, which
is saved as JSON and applied to any set. `held_out` is the honest figure on dev: each part is
combined by what was fitted on the others, and no child is in two parts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from fusion.pool import Ballot, member_names, read_pool
from manifests import NBest, Utterance
from scoring.metric import check_ids
from scoring.normalize import normalize_english
from scoring.pairs import read_references

log = logging.getLogger(__name__)

FOLDS = 5

References = Mapping[str, Utterance]
"""Utterances by ``utt_id``; with texts where something is fitted."""


NO_MANIFEST: References = {}


class Fitted(Protocol):
    """What was learned on dev."""

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield one row per ballot, in order; ``manifest`` may add age and duration."""
        ...


class Method(Protocol):
    """A way to combine members that learns something on dev."""

    def fit(self, ballots: Sequence[Ballot], references: References) -> Fitted:
        """Learn from ballots that all have a reference."""
        ...


def read_dev(
    paths: Sequence[Path], manifest: Path
) -> tuple[list[str], list[Ballot], dict[str, Utterance]]:
    """Return the members' names, their ballots and the references, all that fitting needs.

    ValueError when an utterance has no reference text, or no member knows it.
    """
    references = {row.utt_id: row for row in read_references(manifest)}
    if not any(row.speaker or row.session for row in references.values()):
        log.warning(
            "%s: names no speakers: whom something is judged on it may have been fitted on, "
            "so that figures on dev are too good",
            manifest,
        )
    ballots = list(read_pool(paths))
    if not any(normalize_english(row.text or "") for row in references.values()):
        raise ValueError(f"{manifest}: no words, must hold some text")
    check_ids(references, [ballot.utt_id for ballot in ballots], f"{manifest} and its hypotheses")
    return member_names(paths), ballots, references


def held_out(
    method: Method, ballots: Sequence[Ballot], references: References, folds: int = FOLDS
) -> list[NBest]:
    """Return one row per ballot, in order, each by what was fitted without its speaker.

    Whoever applies sees no text. ValueError where there are fewer than two utterances.
    """
    place = fold_of([references[ballot.utt_id] for ballot in ballots], folds)
    blind = without_texts({b.utt_id: references[b.utt_id] for b in ballots})
    rows: list[NBest | None] = [None] * len(ballots)
    for fold in sorted(set(place)):
        inside = [i for i, at in enumerate(place) if at == fold]
        outside = [ballot for ballot, at in zip(ballots, place, strict=True) if at != fold]
        fitted = method.fit(outside, references)
        combined = fitted.apply([ballots[i] for i in inside], blind)
        for i, row in zip(inside, combined, strict=True):
            rows[i] = row
    return [row for row in rows if row is not None]


def without_texts(references: References) -> References:
    """Return the utterances as whoever combines may see them."""
    return {utt_id: msgspec.structs.replace(row, text=None) for utt_id, row in references.items()}


def fold_of(utterances: Sequence[Utterance], folds: int = FOLDS) -> list[int]:
    """Return each utterance's fold, from 0: a speaker's utterances are all in one.

    Without speakers the sessions are kept whole, else there is one group per utterance; the
    same holds when everybody is one speaker. Folds are as equal as whole groups allow, and do
    not depend on the order of the utterances. ValueError below two utterances.

    >>> one = Utterance(utt_id="a", audio_filepath="a", duration=1, speaker="x")
    >>> fold_of([msgspec.structs.replace(one, utt_id=i, speaker=i[0]) for i in ("x1", "y1", "x2")])
    [0, 1, 0]
    """
    groups = _groups(utterances)
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    filled = [0] * min(folds, len(sizes))
    fold: dict[str, int] = {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], group)):
        fold[group] = filled.index(min(filled))
        filled[fold[group]] += sizes[group]
    return [fold[group] for group in groups]


def _groups(utterances: Sequence[Utterance]) -> list[str]:
    ids = [f"utterance {row.utt_id}" for row in utterances]
    sessions = [
        f"session {row.session}" if row.session else own
        for row, own in zip(utterances, ids, strict=True)
    ]
    speakers = [
        f"speaker {row.speaker}" if row.speaker else own
        for row, own in zip(utterances, sessions, strict=True)
    ]
    for groups in (speakers, sessions, ids):
        if len(set(groups)) > 1:
            return groups
    raise ValueError(f"{len(ids)} utterances to cross-validate on, must be at least two")
