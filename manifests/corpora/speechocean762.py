"""speechocean762: read English of 250 Mandarin speakers, children and adults, with ages.

OpenSLR SLR101; Zhang et al., 2021, arXiv 2104.01378; free for commercial use. Read from
https://www.openslr.org/101/: Kaldi data directories ``train`` and ``test`` whose wav.scp is
relative to the corpus folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from manifests.corpora import Sets
from manifests.corpora.drafts import Draft, measured
from manifests.corpora.kaldi import data_directory
from manifests.rows import Rejected

_ADULT_YEARS = 16


def import_corpus(src: Path) -> Sets:
    """Return ``train`` (children to 15), ``adults`` (of the corpus's train part) and ``test``.

    Exact age and gender are in ``extra`` (``age_years``, ``gender``).
    """
    for part in ("train", "test"):
        if not (src / part / "wav.scp").is_file():
            raise ValueError(f"{src / part / 'wav.scp'}: no such file, must be speechocean762's")
    train = data_directory(src / "train", source="speechocean762", root=src)
    test = data_directory(src / "test", source="speechocean762", root=src)
    return {
        "train": measured(_aged(train, lambda years: years < _ADULT_YEARS, strays=True)),
        "adults": measured(_aged(train, lambda years: years >= _ADULT_YEARS, strays=False)),
        "test": measured(test),
    }


def _aged(
    drafts: list[Draft | Rejected], wanted: Callable[[float], bool], *, strays: bool
) -> Iterator[Draft | Rejected]:
    """Yield the drafts of the wanted ages, and with ``strays`` what has no age or is no draft."""
    for draft in drafts:
        if isinstance(draft, Rejected):
            if strays:
                yield draft
            continue
        years = (draft.row.extra or {}).get("age_years")
        if years is None:
            if strays:
                reason = f"speaker is {draft.row.speaker!r}, must have an age in spk2age"
                yield Rejected(place=draft.place, reason=reason, utt_id=draft.row.utt_id)
        elif wanted(years):
            yield draft
