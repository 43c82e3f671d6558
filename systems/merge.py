"""Put the shards of a decoded manifest together, in the manifest's order.

    python -m systems.merge --manifest test.jsonl --out hyp.jsonl hyp.1.jsonl hyp.2.jsonl

reads rows as `systems.decode` writes them, {"utt_id":"c01-003","system":"whisper","hyps":[...]},
and writes every utterance's row once; an id that is missing, doubled or unknown is an error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from manifests import NBest, read_manifest
from manifests.jsonl import decode_rows, part_path
from manifests.meta import write_meta

_SHOWN = 10


def merge(
    manifest: Path, shards: Sequence[Path], out: Path, *, meta: Mapping[str, Any] | None = None
) -> int:
    """Write the rows of ``shards`` to ``out`` in the manifest's order; return how many.

    ValueError lists the missing, doubled and unknown ids.
    """
    if meta is None:
        meta = {"manifest": str(manifest), "shards": [str(shard) for shard in shards]}
    return write_in_order([row.utt_id for row in read_manifest(manifest)], shards, out, meta)


def write_in_order(
    ids: Sequence[str], sources: Iterable[Path], out: Path, meta: Mapping[str, Any]
) -> int:
    """Write the rows of ``sources`` to ``out`` in the order of ``ids``, atomically.

    Only offsets are kept in memory, never the rows. ValueError as for `merge`.
    """
    place: dict[str, tuple[int, int, int]] = {}  # id -> file, offset, length
    doubled: list[str] = []
    files = list(sources)
    for number, path in enumerate(files):
        offset = 0
        with path.open("rb") as lines:
            for line in lines:
                row = next(decode_rows([line], NBest, f"{path}@{offset}"))
                if row.utt_id in place:
                    doubled.append(row.utt_id)
                place[row.utt_id] = (number, offset, len(line))
                offset += len(line)
    known = set(ids)
    problems = {
        "missing": [utt_id for utt_id in ids if utt_id not in place],
        "doubled": doubled,
        "unknown": [utt_id for utt_id in place if utt_id not in known],
    }
    if any(problems.values()):
        raise ValueError(
            "; ".join(f"{len(bad)} {what}: {_list(bad)}" for what, bad in problems.items() if bad)
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    # Not ".part": that may be one of the sources (the journal of a decode).
    ordered = out.with_name(out.name + ".ordered")
    handles = [path.open("rb") for path in files]
    try:
        with ordered.open("wb") as target:
            for utt_id in ids:
                number, offset, length = place[utt_id]
                handles[number].seek(offset)
                target.write(handles[number].read(length).rstrip(b"\n") + b"\n")
            target.flush()
            os.fsync(target.fileno())
    finally:
        for handle in handles:
            handle.close()
    write_meta(out, meta)
    ordered.replace(out)
    part_path(out).unlink(missing_ok=True)
    return len(ids)


def _list(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[:_SHOWN]) + more


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m systems.merge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--manifest", type=Path, required=True, metavar="M.jsonl")
    parser.add_argument("--out", type=Path, required=True, metavar="H.jsonl")
    parser.add_argument("shards", type=Path, nargs="+", metavar="SHARD")
    args = parser.parse_args(argv)
    try:
        rows = merge(args.manifest, args.shards, args.out)
    except (OSError, ValueError) as error:
        print(f"merge: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {rows} utterances from {len(args.shards)} shards", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
