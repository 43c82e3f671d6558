"""Decode a manifest with one recogniser: one row for each utterance, in the manifest's order.

    python -m systems.decode whisper --config recipes/conf/whisper_small.yaml \\
        --checkpoint exp/whisper/final --manifest test.jsonl --out hyp.jsonl decode.beams=8

reads utterances such as {"utt_id":"c01-003","audio_filepath":"c01/003.flac","duration":2.5} and
writes rows such as
{"utt_id":"c01-003","system":"whisper","hyps":[{"text":"he goed home","score":-1.52,"words":
[{"text":"he","start":0.3,"end":0.42,"confidence":0.98},...]}]}. Killed and called again it goes
on where it was. What cannot be decoded has a row with an ``error``; the exit status is 1 where
that is all. ``--manifest`` and ``--out`` may be repeated, in pairs. ``--shard 2/4`` decodes
the second of four equal parts for `systems.merge`.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lm.ngram import NGram
from manifests import NBest, Seconds, Utterance, read_manifest
from manifests.progress import bars_wanted
from systems.config import load_config
from systems.contract import System, system_class
from systems.journal import Journal, files_digest, utterances_digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What one call decoded (not what it found done)."""

    utterances: int
    errors: int
    audio_seconds: Seconds
    wall_seconds: Seconds
    fault: str | None  # the first error where every utterance of the output has one

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second of decoding."""
        return self.audio_seconds / max(self.wall_seconds, 1e-9)

    def __str__(self) -> str:
        rate = self.utterances / max(self.wall_seconds, 1e-9)
        return (
            f"{self.utterances} utterances, {self.audio_seconds:.1f} s of audio, "
            f"in {self.wall_seconds:.1f} s: {rate:.2f} utterances/s, RTFx {self.rtfx:.1f}, "
            f"{self.errors} errors"
        )


def decode(
    name: str,
    config: Any,
    checkpoint: str,
    manifest: Path,
    out: Path,
    *,
    lm: Path | None = None,
    shard: tuple[int, int] = (1, 1),
    restart: bool = False,
    progress: Callable[[Iterable[NBest], int], Iterable[NBest]] | None = None,
) -> Summary:
    """Decode ``manifest`` with system ``name`` to ``out``; go on where a killed call was.

    ``config`` is of the system's `config_type`; ``shard`` is (k, n), k from 1. ``progress``
    wraps the rows to come. ValueError when an unfinished ``out`` was made from something else
    (see `Journal`), ``out`` is the manifest or a folder, or the manifest has an id twice;
    OSError when ``lm`` is no n-gram.
    """
    started = time.monotonic()
    if out.is_dir():
        raise ValueError(f"{out}: is a folder, must be a file")
    if out.exists() and manifest.exists() and out.samefile(manifest):
        raise ValueError(f"{out}: is the manifest, must be another file")
    if lm is not None:
        NGram(lm)  # a search process that finds none costs each utterance its result
    utterances = take_shard(_read_unique(manifest), *shard)
    origin = {
        "system": name,
        "config": msgspec.to_builtins(config),
        "checkpoint": files_digest(checkpoint),
        "lm": None if lm is None else files_digest(lm),
        "manifest": utterances_digest(utterances),
    }
    with Journal(out, origin, restart=restart) as journal:
        todo = [utterance for utterance in utterances if utterance.utt_id not in journal.done]
        if len(todo) < len(utterances):
            log.info("%d of %d utterances are done", len(utterances) - len(todo), len(utterances))
        rows: Iterable[NBest] = iter(())
        if todo:
            system: System = system_class(name)(config)
            rows = _one_each(todo, system.decode(todo, checkpoint, lm), name)
        faults: list[str] = []
        for row in progress(rows, len(todo)) if progress else rows:
            journal.add(row)
            if row.error is not None:
                faults.append(f"{row.utt_id}: {row.error}")
                log.warning("%s", faults[-1])
        summary = Summary(
            utterances=len(todo),
            errors=len(faults),
            audio_seconds=round(sum(utterance.duration for utterance in todo), 3),
            wall_seconds=round(time.monotonic() - started, 3),
            fault=faults[0] if faults and len(faults) == len(utterances) else None,
        )
        meta = {
            **origin,
            "checkpoint": str(checkpoint),
            "manifest": str(manifest),
            "lm": None if lm is None else str(lm),
            "shard": f"{shard[0]}/{shard[1]}",
            "utterances": len(utterances),
            "audio_seconds": round(sum(utterance.duration for utterance in utterances), 3),
            # Of the last call, which may have found a part of it done.
            "last_call": {**msgspec.to_builtins(summary), "rtfx": round(summary.rtfx, 2)},
        }
        journal.publish([utterance.utt_id for utterance in utterances], meta)
    return summary


def take_shard(utterances: Sequence[Utterance], shard: int, shards: int) -> list[Utterance]:
    """Return part ``shard`` (from 1) of ``shards``, in the given order.

    Every ``shards``-th utterance by length, so all parts have about as much audio; depends on
    nothing but the utterances.

    >>> lengths = {"a": 1.0, "b": 9.0, "c": 2.0, "d": 8.0}
    >>> rows = [Utterance(utt_id=k, audio_filepath=k, duration=d) for k, d in lengths.items()]
    >>> [[row.utt_id for row in take_shard(rows, k, 2)] for k in (1, 2)]
    [['b', 'c'], ['a', 'd']]
    """
    if not 1 <= shard <= shards:
        raise ValueError(
            f"shard is {shard}/{shards}, must lie between 1/{shards} and {shards}/{shards}"
        )
    by_length = sorted(range(len(utterances)), key=lambda index: -utterances[index].duration)
    return [utterances[index] for index in sorted(by_length[shard - 1 :: shards])]


def parse_shard(text: str) -> tuple[int, int]:
    """Return (k, n) of "k/n" with 1 <= k <= n, or raise ValueError.

    >>> parse_shard("2/4")
    (2, 4)
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"shard is {text!r}, must be K/N with 1 <= K <= N")
    return int(match[1]), int(match[2])


def _read_unique(manifest: Path) -> list[Utterance]:
    utterances = list(read_manifest(manifest))
    doubled = [utt_id for utt_id, n in Counter(row.utt_id for row in utterances).items() if n > 1]
    if doubled:
        raise ValueError(f"{manifest}: utt_id occurs twice: {', '.join(doubled[:10])}")
    return utterances


def _one_each(todo: Sequence[Utterance], rows: Iterator[NBest], name: str) -> Iterator[NBest]:
    """Yield a system's rows and hold it to its contract: each utterance once, no other."""
    missing = {utterance.utt_id for utterance in todo}
    for row in rows:
        if row.utt_id not in missing:
            raise AssertionError(f"{name} gave a second or unknown row {row.utt_id}")
        missing.remove(row.utt_id)
        yield row
    if missing:
        raise AssertionError(f"{name} gave no row for {', '.join(sorted(missing)[:10])}")


def _bar(rows: Iterable[NBest], total: int) -> Iterable[NBest]:
    from tqdm import tqdm

    bar: Iterable[NBest] = tqdm(
        rows, total=total, unit="utt", disable=not bars_wanted(), smoothing=0.05
    )
    return bar


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m systems.decode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("system", metavar="NAME", help="a registered system, such as whisper")
    parser.add_argument("--config", type=Path, required=True, metavar="C.yaml")
    parser.add_argument(
        "--checkpoint", metavar="DIR", help="or a hub id (default: the config's pretrained)"
    )
    parser.add_argument("--manifest", type=Path, action="append", required=True, metavar="M.jsonl")
    parser.add_argument("--out", type=Path, action="append", required=True, metavar="H.jsonl")
    parser.add_argument("--lm", type=Path, metavar="LM_DIR", help="a folder made by lm.train")
    parser.add_argument("--shard", default="1/1", metavar="K/N", help="decode one of N parts")
    parser.add_argument("--restart", action="store_true", help="discard an unfinished output")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config overrides")
    args = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    if len(args.manifest) != len(args.out):
        parser.error(f"{len(args.manifest)} manifests and {len(args.out)} outputs, must be equal")
    if len(set(map(Path.resolve, args.out))) < len(args.out):
        parser.error(f"--out is {' and '.join(map(str, args.out))}, must be different files")
    faults = []
    try:
        config = load_config(system_class(args.system).config_type, args.config, args.overrides)
        for manifest, out in zip(args.manifest, args.out, strict=True):
            summary = decode(
                args.system,
                config,
                args.checkpoint or config.pretrained,
                manifest,
                out,
                lm=args.lm,
                shard=parse_shard(args.shard),
                restart=args.restart,
                progress=_bar,
            )
            log.info("%s: %s", out, summary)
            if summary.fault is not None:
                faults.append(
                    f"{out}: none of {summary.utterances} utterances could be decoded, the first: "
                    f"{summary.fault}; delete the file to decode anew"
                )
    except (OSError, ValueError) as error:
        faults.append(str(error))
    for fault in faults:
        print(f"decode: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
