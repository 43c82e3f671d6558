"""Import a corpus: its sets become manifests of 16 kHz mono FLAC.

    python -m manifests.prepare speechocean762 ../shared/data/speechocean762 --out exp/data

reads the corpus in its own layout (any audio format, rate, channels) and writes for each set

    exp/data/train.jsonl             {"utt_id":"000010011","audio_filepath":"audio/train/...",...}
    exp/data/train.long.jsonl        what is longer than --max-seconds, kept aside
    exp/data/train.quarantine.jsonl  {"place":"a.wav","reason":"0 bytes, must hold audio",...}
    exp/data/audio/train/            the FLAC files and their index

Run again it redoes only what is missing or whose source has changed. Damaged files, and those
that are too short, are quarantined with a reason and counted; they are never fatal.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from manifests.corpora import REGISTRY, Sets, import_corpus
from manifests.jsonl import RowWriter
from manifests.progress import bars_wanted
from manifests.rows import Rejected, Seconds, Utterance

logger = logging.getLogger(__name__)

MIN_SECONDS: Seconds = 0.1  # below it no recogniser's front end yields a frame
MAX_SECONDS: Seconds = 30.0  # Whisper's window, the shortest of the recognisers'

Progress = Callable[[Iterable[Utterance]], Iterable[Utterance]]


@dataclass
class Counts:
    """What became of one set's utterances."""

    kept: int = 0
    hours: float = 0.0  # of the kept
    long: int = 0
    short: int = 0
    damaged: int = 0
    rejected: int = 0  # by the importer


def prepare(
    corpus: str,
    src: Path,
    out: Path,
    *,
    jobs: int = 1,
    sets: Sequence[str] | None = None,
    limit: int | None = None,
    min_seconds: Seconds = MIN_SECONDS,
    max_seconds: Seconds = MAX_SECONDS,
    whole: Sequence[str] = (),
    verify_md5: bool = False,
    progress: Progress = iter,
) -> dict[str, Counts]:
    """Write the manifests of a corpus' ``sets`` (None: all) into ``out`` and return the counts.

    Rows keep the corpus' order. ``limit`` takes that many utterances of each set, in turn from
    every speaker. Of the sets in ``whole`` no recording is too long. No manifest appears before
    all of them are complete. Raises ValueError for a corpus that cannot be read or a set that it
    has not, OSError when ``out`` cannot be written.
    """
    if not 0 < min_seconds <= max_seconds:
        raise ValueError(
            f"seconds are {min_seconds:g} to {max_seconds:g}, must be 0 < minimum <= maximum"
        )
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}, must be > 0")
    found = _import(corpus, src, verify_md5, limit)
    unknown = sorted(set(sets or ()) - set(found))
    if unknown:
        raise ValueError(f"set is {unknown[0]!r}, must be one of: {', '.join(found)}")
    out = out.resolve()
    names = list(dict.fromkeys(sets or found))
    _check_outputs(corpus, src, out, names)
    counts = {}
    with ExitStack() as files:
        for name in names:
            logger.info("preparing %s", name)
            longest = math.inf if name in whole else max_seconds
            writer = _SetWriter(out, name, min_seconds, longest, files)
            writer.run(found[name], limit, jobs, progress)
            counts[name] = writer.counts
    return counts


def _import(corpus: str, src: Path, verify_md5: bool, limit: int | None) -> Sets:
    if corpus in ("mini", "read_aloud") and limit is not None and not verify_md5:
        from manifests.corpora import mini, read_aloud

        # These make their audio: no more than is wanted.
        make = mini.import_corpus if corpus == "mini" else read_aloud.import_corpus
        return make(src, limit)
    if not verify_md5:
        return import_corpus(corpus, src)
    if corpus != "pasketti":
        raise ValueError(f"corpus is {corpus!r}, must be pasketti: no other publishes MD5 sums")
    from manifests.corpora import pasketti

    return pasketti.import_corpus(src, verify=True)


def _outputs(out: Path, name: str) -> list[Path]:
    return [out / f"{name}{kind}.jsonl" for kind in ("", ".long", ".quarantine")]


def _check_outputs(corpus: str, src: Path, out: Path, names: Sequence[str]) -> None:
    """Raise ValueError where two sets would write one file, or one the manifest it is read from."""
    owners: dict[Path, str] = {}
    for name in names:
        for path in _outputs(out, name):
            if path in owners:
                raise ValueError(
                    f"{path}: is written by sets {owners[path]!r} and {name!r}, "
                    "must be by one: choose with --sets"
                )
            owners[path] = name
    if corpus in ("nemo", "read_aloud"):
        read = {src.resolve(), *(path.resolve() for path in src.glob("*.jsonl"))}
        for path in read & owners.keys():
            raise ValueError(f"{path}: is the source itself, --out must be another folder")


class _SetWriter:
    """The three manifests of one set."""

    def __init__(
        self, out: Path, name: str, shortest: Seconds, longest: Seconds, files: ExitStack
    ) -> None:
        self.counts = Counts()
        self._out, self._name, self._shortest, self._longest = out, name, shortest, longest
        self._meta: dict[str, object] = {"set": name}
        self._kept, self._long, self._quarantine = (
            files.enter_context(RowWriter(path, meta=self._meta)) for path in _outputs(out, name)
        )

    def run(
        self,
        rows: Iterable[Utterance | Rejected],
        limit: int | None,
        jobs: int,
        progress: Progress,
    ) -> None:
        """Prepare the set's audio and write its rows."""
        # Deferred: loads libsndfile and numpy, which --help does not need.
        from manifests.flac import Damaged, clip_path, prepare_clips

        accepted = self._accepted(rows)
        if limit is not None:
            accepted = iter(limited(accepted, limit))
        audio = Path("audio") / self._name
        for row, clip in prepare_clips(progress(accepted), self._out / audio, jobs):
            if isinstance(clip, Damaged):
                self.counts.damaged += 1
                self._reject(row, clip.reason)
                continue
            self._sort(row, (audio / clip_path(row.utt_id)).as_posix(), clip.seconds)
        self._meta["counts"] = asdict(self.counts)

    def _accepted(self, rows: Iterable[Utterance | Rejected]) -> Iterator[Utterance]:
        for row in rows:
            if isinstance(row, Rejected):
                self.counts.rejected += 1
                self._quarantine.write(row)
            else:
                yield row

    def _sort(self, source: Utterance, path: str, seconds: Seconds) -> None:
        if seconds < self._shortest:
            self.counts.short += 1
            self._reject(source, f"duration is {seconds:g} s, must be >= {self._shortest:g} s")
            return
        row = msgspec.structs.replace(source, audio_filepath=path, offset=0.0, duration=seconds)
        if seconds > self._longest:
            self.counts.long += 1
            self._long.write(row)
        else:
            self.counts.kept += 1
            self.counts.hours += seconds / 3600
            self._kept.write(row)

    def _reject(self, row: Utterance, reason: str) -> None:
        self._quarantine.write(Rejected(place=row.audio_filepath, reason=reason, utt_id=row.utt_id))


def limited(rows: Iterable[Utterance], limit: int) -> list[Utterance]:
    """Return ``limit`` rows, in order: every speaker's first, then every speaker's second, ...

    >>> rows = [Utterance(utt_id=f"{s}{i}", audio_filepath="a.wav", duration=1, speaker=s)
    ...         for s in "ab" for i in range(3)]
    >>> [row.utt_id for row in limited(rows, 3)]
    ['a0', 'a1', 'b0']
    """
    if limit < 1:
        raise ValueError(f"limit is {limit}, must be > 0")
    turns: dict[str | None, int] = {}
    candidates: list[tuple[int, int, Utterance]] = []
    for position, row in enumerate(rows):
        turn = turns[row.speaker] = turns.get(row.speaker, -1) + 1
        if turn < limit:
            candidates.append((turn, position, row))
    candidates.sort(key=lambda candidate: candidate[:2])
    chosen = sorted(candidates[:limit], key=lambda candidate: candidate[1])
    return [row for _, _, row in chosen]


def summary(counts: dict[str, Counts]) -> str:
    """Return the counts as a table, one line per set."""
    lines = [
        f"{'set':<12}{'kept':>9}{'hours':>9}{'long':>9}{'short':>9}{'damaged':>9}{'rejected':>9}"
    ]
    lines += [
        f"{name:<12}{c.kept:>9}{c.hours:>9.2f}{c.long:>9}{c.short:>9}{c.damaged:>9}{c.rejected:>9}"
        for name, c in counts.items()
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m manifests.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", choices=sorted(REGISTRY))
    parser.add_argument("src", type=Path, help="the corpus' folder (nemo: its manifest)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--sets", help="comma-separated; default: all the corpus has")
    parser.add_argument("--limit", type=int, help="this many utterances of each set, for a try")
    parser.add_argument("--min-seconds", type=float, default=MIN_SECONDS)
    parser.add_argument("--max-seconds", type=float, default=MAX_SECONDS)
    parser.add_argument(
        "--whole", default="", help="comma-separated sets that keep what is longer: not trained on"
    )
    parser.add_argument(
        "--verify-md5", action="store_true", help="pasketti: check every file's MD5 and size"
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        counts = prepare(
            args.corpus,
            args.src,
            args.out,
            jobs=args.nj,
            sets=args.sets.split(",") if args.sets else None,
            limit=args.limit,
            min_seconds=args.min_seconds,
            max_seconds=args.max_seconds,
            whole=args.whole.split(","),
            verify_md5=args.verify_md5,
            progress=_progress,
        )
    except (ValueError, OSError) as error:
        print(f"manifests.prepare: {error}", file=sys.stderr)
        return 1
    print(summary(counts))
    if not any(one.kept or one.long for one in counts.values()):
        print(f"manifests.prepare: {args.src}: no utterance could be kept", file=sys.stderr)
        return 1
    return 0


def _progress(rows: Iterable[Utterance]) -> Iterable[Utterance]:
    from tqdm import tqdm

    return tqdm(rows, unit=" utts", disable=not bars_wanted())


if __name__ == "__main__":
    sys.exit(main())
