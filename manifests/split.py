"""Split a manifest so that no speaker is on two sides, or check that none is.

    python -m manifests.split train.jsonl --out split --dev 0.1 --by speaker --stratify age
    python -m manifests.split --check split/train.jsonl split/dev.jsonl test.jsonl

writes split/train.jsonl and split/dev.jsonl (with --test also split/test.jsonl) and prints

      side  speakers      utts     hours       5-7      8-11       12+
     train        52      1040      1.01       420       380       240
       dev         6       120      0.12        40        60        20

The check prints each speaker that crosses and ends with status 1 if there is one.

A hash of seed and speaker gives each speaker a place in [0, 1); below ``--test`` is test, below
``--test`` + ``--dev`` is dev, the rest is train. So the shares are shares of the speakers and
hold on average, and nobody moves when others come or go. Only a stratum (age bucket) of a few
speakers that would leave a side empty departs from this: the speaker whose place is nearest
to that side moves there. Such a stratum alone may change when a new speaker joins it; with
``--previous DIR`` (an earlier split) nobody ever moves.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from manifests.jsonl import RowWriter, read_rows
from manifests.rows import AGE_BUCKETS, Utterance

Side = Literal["train", "dev", "test"]
Group = Literal["speaker", "session", "utt_id"]
# From the top of [0, 1) down; also who comes first in a stratum of few speakers.
SIDES: tuple[Side, ...] = ("train", "dev", "test")
_UNKNOWN = "unknown"
_NAMED = 5  # rows that an error names


def position(key: str, seed: int) -> float:
    """Return a speaker's place in [0, 1), uniform over speakers and the same for ever.

    >>> round(position("0001", seed=1), 6), round(position("0001", seed=2), 6)
    (0.373413, 0.553809)
    """
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48


def assign(
    strata: Mapping[str, str],
    *,
    dev: float,
    test: float = 0.0,
    seed: int = 1,
    previous: Mapping[str, Side] | None = None,
) -> dict[str, Side]:
    """Return the side of every speaker (or session, ...); ``strata`` maps each to its stratum.

    ``previous`` sides are kept. Every side with a share gets at least one speaker of every
    stratum that has as many speakers as there are such sides; train comes first, then dev.
    """
    if not (dev >= 0 and test >= 0 and 0 < dev + test < 1):
        raise ValueError(
            f"shares are dev {dev:g}, test {test:g}, must be >= 0 with a sum in (0, 1)"
        )
    previous = previous or {}
    sides: dict[str, Side] = {}
    members: dict[str, list[str]] = {}
    for place, key in sorted((position(key, seed), key) for key in strata):
        hashed: Side = "test" if place < test else "dev" if place < test + dev else "train"
        sides[key] = previous.get(key, hashed)
        members.setdefault(strata[key], []).append(key)
    wanted = _wanted(dev, test)
    for keys in (*members.values(), list(sides)):  # the strata, then all in one
        if len(keys) > 1:
            _fill(keys, sides, wanted, previous)
    return sides


def _wanted(dev: float, test: float) -> list[Side]:
    shares: dict[Side, float] = {"train": 1 - dev - test, "dev": dev, "test": test}
    return [side for side in SIDES if shares[side] > 0]


def _fill(
    keys: list[str], sides: dict[str, Side], wanted: list[Side], fixed: Container[str]
) -> None:
    """Give each empty side of a stratum one speaker; ``keys`` are sorted by place."""
    for rank, side in enumerate(wanted):
        if any(sides[key] == side for key in keys):
            continue
        sizes = Counter(sides[key] for key in keys)
        free = {giver: [k for k in keys if sides[k] == giver and k not in fixed] for giver in SIDES}
        # From the fullest side that keeps one; if there is none, from one that counts less.
        givers = [s for s in SIDES if free[s] and sizes[s] > 1]
        givers = givers or [s for s in wanted[rank + 1 :] if free[s]]
        if givers:
            giver = max(givers, key=lambda s: sizes[s])
            upwards = SIDES.index(side) < SIDES.index(giver)  # train lies above dev above test
            sides[free[giver][-1 if upwards else 0]] = side


@dataclass
class SideCounts:
    """How much lies on one side."""

    groups: int = 0  # speakers, or what was split by
    utts: int = 0
    hours: float = 0.0
    ages: Counter[str] = field(default_factory=Counter)  # utterances by age bucket


def split(
    manifest: Path,
    out: Path,
    *,
    dev: float,
    test: float = 0.0,
    by: Group = "speaker",
    stratify: Literal["age", "none"] = "age",
    seed: int = 1,
    previous: Path | None = None,
) -> dict[Side, SideCounts]:
    """Write ``out``/train.jsonl, dev.jsonl and (with a share) test.jsonl; return the counts.

    ``previous`` is the folder of an earlier split whose sides are kept. Raises ValueError for a
    row without the field ``by``, when a side would stay empty, or would replace ``manifest``.
    """
    if manifest.resolve() in {(out / f"{side}.jsonl").resolve() for side in SIDES}:
        raise ValueError(f"{out}: holds {manifest.name} itself, must be another folder")
    strata = _strata(manifest, by, stratify)
    earlier = previous_sides(previous, by) if previous else {}
    sides = assign(strata, dev=dev, test=test, seed=seed, previous=earlier)
    kept = set(earlier.values())
    wanted = [side for side in SIDES if side in kept or side in _wanted(dev, test)]
    for side in wanted:
        if side not in sides.values():
            raise ValueError(
                f"{manifest}: {side} is empty with {len(sides)} {by}(s), "
                "must have one: give more or ask for fewer sides"
            )
    counts = {side: SideCounts() for side in wanted}
    for side in sides.values():
        counts[side].groups += 1
    meta = {"manifest": str(manifest), "dev": dev, "test": test, "by": by, "seed": seed}
    meta |= {"stratify": stratify, "previous": previous}
    with ExitStack() as files:
        writers = {s: files.enter_context(RowWriter(out / f"{s}.jsonl", meta=meta)) for s in wanted}
        for row in moved(manifest, out):
            side = sides[getattr(row, by)]
            writers[side].write(row)
            counts[side].utts += 1
            counts[side].hours += row.duration / 3600
            counts[side].ages[row.age or _UNKNOWN] += 1
    return counts


def moved(manifest: Path, folder: Path) -> Iterator[Utterance]:
    """Yield a manifest's rows with paths that are right in a manifest in ``folder``."""
    here = os.path.relpath(manifest.resolve().parent, folder.resolve())
    for row in read_rows(manifest, Utterance):
        # An absolute path stays as it is: join drops what is before it.
        path = os.path.normpath(os.path.join(here, row.audio_filepath))  # noqa: PTH118
        yield msgspec.structs.replace(row, audio_filepath=Path(path).as_posix())


def _strata(manifest: Path, by: Group, stratify: str) -> dict[str, str]:
    """Return every group's stratum: its youngest age bucket, whatever order its rows have."""
    order = (*AGE_BUCKETS, _UNKNOWN)
    youngest: dict[str, int] = {}
    missing = []
    for number, row in enumerate(read_rows(manifest, Utterance), 1):
        key = getattr(row, by)
        if key is None:
            missing.append(number)
            continue
        age = order.index(row.age or _UNKNOWN) if stratify == "age" else 0
        youngest[key] = min(age, youngest.get(key, age))
    if missing:
        rows = ", ".join(map(str, missing[:_NAMED])) + (", ..." if missing[_NAMED:] else "")
        raise ValueError(
            f"{manifest}:{missing[0]}: {by} is absent, must be given to split by it "
            f"({len(missing)} such rows: {rows})"
        )
    return {key: order[age] for key, age in youngest.items()}


def previous_sides(folder: Path, by: Group = "speaker") -> dict[str, Side]:
    """Return who is on which side of the split in ``folder``; ValueError if one is on two."""
    sides: dict[str, Side] = {}
    for side in SIDES:
        path = folder / f"{side}.jsonl"
        if not path.exists():
            continue
        for row in read_rows(path, Utterance):
            key = getattr(row, by)
            if key is not None and sides.setdefault(key, side) != side:
                raise ValueError(f"{path}: {by} is {key!r}, must not be in {sides[key]} too")
    if not sides:
        raise ValueError(f"{folder}: no split, must hold train.jsonl and dev.jsonl")
    return sides


def crossing_speakers(*manifests: Iterable[Utterance]) -> dict[str, tuple[int, ...]]:
    """Return the speakers found in more than one manifest, each with the manifests' numbers.

    Rows without a speaker are passed over.

    >>> rows = [Utterance(utt_id=s, audio_filepath="a", duration=1, speaker=s) for s in "abc"]
    >>> crossing_speakers(rows[:2], rows[2:], rows[1:2])
    {'b': (0, 2)}
    """
    found: dict[str, set[int]] = {}
    for number, rows in enumerate(manifests):
        for row in rows:
            if row.speaker is not None:
                found.setdefault(row.speaker, set()).add(number)
    return {who: tuple(sorted(where)) for who, where in found.items() if len(where) > 1}


def summary(counts: Mapping[Side, SideCounts], by: Group = "speaker") -> str:
    """Return the counts as a table, one line per side."""
    ages = [age for age in (*AGE_BUCKETS, _UNKNOWN) if any(c.ages[age] for c in counts.values())]
    rows: list[list[object]] = [["side", f"{by}s", "utts", "hours", *ages]]
    rows += [
        [side, c.groups, c.utts, f"{c.hours:.2f}", *(c.ages[age] for age in ages)]
        for side, c in counts.items()
    ]
    return "\n".join("".join(f"{cell:>10}" for cell in row) for row in rows)


def _check(paths: list[Path]) -> int:
    without = Counter[Path]()

    def speakers(path: Path) -> Iterator[Utterance]:
        for row in read_rows(path, Utterance):
            without[path] += row.speaker is None
            yield row

    crossing = crossing_speakers(*map(speakers, paths))
    for who, where in crossing.items():
        print(f"speaker {who!r} is in {', '.join(str(paths[i]) for i in where)}, must be in one")
    for path, rows in without.items():
        if rows:
            print(f"{path}: {rows} rows without a speaker were not checked", file=sys.stderr)
    if not crossing:
        print(f"no speaker crosses {', '.join(map(str, paths))}")
    return 1 if crossing else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m manifests.split",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dev", type=float, default=0.05, help="share of the speakers")
    parser.add_argument("--test", type=float, default=0.0, help="share of the speakers")
    parser.add_argument("--by", choices=("speaker", "session", "utt_id"), default="speaker")
    parser.add_argument("--stratify", choices=("age", "none"), default="age")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--previous", type=Path, help="keep the sides of the split in this folder")
    parser.add_argument("--check", type=Path, nargs="+", help="only look for crossing speakers")
    args = parser.parse_args(argv)
    if args.check is None and (args.manifest is None or args.out is None):
        parser.error("give MANIFEST and --out DIR, or --check MANIFEST...")
    try:
        if args.check is not None:
            return _check(args.check)
        counts = split(
            args.manifest,
            args.out,
            dev=args.dev,
            test=args.test,
            by=args.by,
            stratify=args.stratify,
            seed=args.seed,
            previous=args.previous,
        )
    except (ValueError, OSError) as error:
        print(f"manifests.split: {error}", file=sys.stderr)
        return 1
    print(summary(counts, args.by))
    return 0


if __name__ == "__main__":
    sys.exit(main())
