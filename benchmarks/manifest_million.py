"""Read and validate a manifest of a million rows: wall time and peak memory.

    python benchmarks/manifest_million.py [--rows 1000000] [--runs 3]

Each measurement runs in a fresh process; the median of the runs is printed, beside that of
``json.loads`` to plain dicts without any check:
    read_rows             1.07 s   0.35x json    25 MB
Exits 1 if reading and validating together take more than 5 s, or either more than 1 GB.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from manifests import AGE_BUCKETS, Utterance, read_manifest, read_rows, write_rows
from manifests.validate import validate

MAX_SECONDS = 5.0
MAX_BYTES = 1e9
WORDS = ("the", "a", "I", "cat", "dog", "goed", "home", "tooths", "want", "to", "see", "friend")


class Cost(NamedTuple):
    """What one run took."""

    seconds: float
    peak_bytes: int


def utterances(count: int) -> Iterator[Utterance]:
    """Yield rows of the competition's kind: 0.3 to 20 s, 1 to 20 words, 1,500 children."""
    draw = random.Random(1)
    for number in range(count):
        yield Utterance(
            utt_id=f"U_{number:07d}{draw.getrandbits(40):010x}",
            audio_filepath=f"audio/{number % 256:02x}/U_{number:07d}.flac",
            duration=round(draw.uniform(0.3, 20), 3),
            text=" ".join(draw.choices(WORDS, k=draw.randint(1, 20))),
            speaker=f"child_{number % 1500:04d}",
            session=f"session_{number % 9000:04d}",
            age=draw.choice(AGE_BUCKETS),
            source="pasketti",
        )


def read_json(path: Path) -> int:
    with path.open("rb") as lines:
        return sum(1 for line in lines if json.loads(line))


def check(path: Path) -> int:
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows

    for problem in validate(path, Utterance, audio=False, progress=advance):
        raise ValueError(problem)
    return done


MEASURED: dict[str, Callable[[Path], int]] = {
    "json.loads": read_json,
    "read_rows": lambda path: sum(1 for _ in read_rows(path, Utterance)),
    "read_manifest": lambda path: sum(1 for _ in read_manifest(path)),
    "validate --no-audio": check,
}


def measure(name: str, path: Path, rows: int) -> Cost:
    """Return what ``name`` takes in this process."""
    start = time.perf_counter()
    count = MEASURED[name](path)
    seconds = time.perf_counter() - start
    if count != rows:
        raise ValueError(f"{name} saw {count} rows, must see {rows}")
    # Not getrusage: its maximum is inherited from the parent through fork and exec.
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return Cost(seconds, int(kilobytes) * 1024)


def measure_apart(name: str, path: Path, rows: int) -> Cost:
    """Return what ``name`` takes in a fresh process."""
    command = [sys.executable, __file__, "--measure", name, str(path), "--rows", str(rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = json.loads(done.stdout)
    return Cost(seconds, peak)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        name, file = args.measure
        print(json.dumps(measure(name, Path(file), args.rows)))
        return 0
    costs: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.jsonl"
        write_rows(path, utterances(args.rows))
        print(f"{args.rows:,} rows, {path.stat().st_size / 1e6:.0f} MB")
        # Interleaved, so that a busy moment of the machine does not hit one of them alone.
        runs = [
            {name: measure_apart(name, path, args.rows) for name in MEASURED}
            for _ in range(args.runs)
        ]
    for name in MEASURED:
        seconds = statistics.median(run[name].seconds for run in runs)
        costs[name] = Cost(seconds, max(run[name].peak_bytes for run in runs))
        ratio = seconds / costs["json.loads"].seconds
        megabytes = costs[name].peak_bytes / 1e6
        print(f"{name:<20} {seconds:5.2f} s  {ratio:5.2f}x json  {megabytes:4.0f} MB")
    required = costs["read_rows"], costs["validate --no-audio"]
    total = sum(cost.seconds for cost in required)
    print(f"reading and validating: {total:.2f} s")
    within = total <= MAX_SECONDS and all(cost.peak_bytes <= MAX_BYTES for cost in required)
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
