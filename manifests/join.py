"""Several manifests as one.

    python -m manifests.join adults.jsonl read_aloud/read_aloud.jsonl --out base.jsonl

writes the rows in order, their audio paths relative to the new file's folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from manifests.jsonl import write_rows
from manifests.rows import Utterance
from manifests.split import moved


def join(manifests: Sequence[Path], out: Path) -> int:
    """Write all rows to ``out`` and return how many.

    ValueError for an id that is there twice, without regard to case as in `manifests.validate`.
    """
    seen: dict[str, tuple[Path, int]] = {}

    def rows() -> Iterator[Utterance]:
        for manifest in manifests:
            for number, row in enumerate(moved(manifest, out.parent), 1):
                key = row.utt_id.lower()
                if key in seen:
                    there, line = seen[key]
                    raise ValueError(
                        f"{manifest}:{number}: utt_id is {row.utt_id!r}, must be unique without "
                        f"regard to case (first at {there}:{line})"
                    )
                seen[key] = manifest, number
                yield row

    return write_rows(out, rows(), meta={"manifests": [str(path) for path in manifests]})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m manifests.join",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifests", type=Path, nargs="+", metavar="MANIFEST")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        count = join(args.manifests, args.out)
    except (ValueError, OSError) as error:
        print(f"manifests.join: {error}", file=sys.stderr)
        return 1
    print(f"{count} rows in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
