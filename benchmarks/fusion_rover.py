"""How fast files are fused: ours against NIST's rover, command against command, in one run.

Example::

    python -m benchmarks.fusion_rover
    python -m benchmarks.fusion_rover --utts 1000 --members 49 --rover-utts 100

Members of about 10 % word errors each are drawn with times and confidences and written as CTM and
as JSON Lines, and as texts alone. Each command is started as a user starts it and reads and writes
files; of several rounds the fastest counts. Rover's time grows in step with the utterances, so of
many members it may be given fewer of them; what it writes must be what we write. Printed as JSON,
the ratios of wall and of processor time::

    {"utts": 64000, "members": 3, "same_bytes": true,
     "runs": {"rover": {"s": 17.7, "cpu_s": 11.7, "mb": 1900}, ...},
     "times_faster": {"exact, CTM": [5.1, 3.4], ...}}
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import msgspec

from manifests import Hypothesis, NBest, Word, write_rows
from scoring.sctk import sctk_command

ROOT = Path(__file__).parents[1]
# Words of three syllables, none of them a number: the scorer takes numbers apart.
SYLLABLES = ["".join(letters) for letters in product("bdfgklmnprstvz", "aeiou")]
VOCABULARY = random.Random(0).sample(["".join(w) for w in product(SYLLABLES, repeat=3)], 5000)
WORDS = 8
RULE = ("avgconf", "0.5", "0.3")  # method, alpha, null confidence


class Heard(NamedTuple):
    text: str
    start: float
    confidence: float


def members_of(draw: random.Random, members: int) -> list[list[Heard]]:
    """Return what each member hears of one utterance: substitutions, deletions, insertions."""
    said = draw.choices(VOCABULARY, k=WORDS)
    heard = []
    for _ in range(members):
        words = []
        for place, text in enumerate(said):
            start = 0.2 + 0.4 * place + draw.choice((0.0, 0.01, 0.02))
            dice = draw.random()
            if dice < 0.06:
                text = draw.choice(VOCABULARY)
            if not 0.06 <= dice < 0.08:
                words.append(Heard(text, round(start, 2), round(draw.random(), 3)))
            if dice > 0.98:
                words.append(
                    Heard(draw.choice(VOCABULARY), round(start + 0.2, 2), round(draw.random(), 3))
                )
        # Rover stops at an utterance without words.
        heard.append(words or [Heard(VOCABULARY[0], 0.2, 0.5)])
    return heard


def write_members(folder: Path, utts: int, members: int, rover_utts: int) -> None:
    """Write every member as CTM, as JSON Lines, and as the CTM that rover is given."""
    draw = random.Random(1)
    heard = [members_of(draw, members) for _ in range(utts)]
    for member in range(members):
        ctm = [
            f"u{n:06} 1 {word.start:.2f} 0.18 {word.text} {word.confidence:.3f}\n"
            for n, rows in enumerate(heard)
            for word in rows[member]
        ]
        (folder / f"m{member}.ctm").write_text("".join(ctm))
        part = sum(len(rows[member]) for rows in heard[:rover_utts])
        (folder / f"r{member}.ctm").write_text("".join(ctm[:part]))
        write_rows(folder / f"m{member}.jsonl", _rows(heard, member))
        texts = (
            msgspec.structs.replace(row, hyps=(Hypothesis(text=row.best.text),))
            for row in _rows(heard, member)
        )
        write_rows(folder / f"t{member}.jsonl", texts)


def _rows(heard: Sequence[Sequence[Sequence[Heard]]], member: int) -> Iterator[NBest]:
    for n, rows in enumerate(heard):
        words = tuple(
            Word(text=w.text, start=w.start, end=round(w.start + 0.18, 2), confidence=w.confidence)
            for w in rows[member]
        )
        hyp = Hypothesis(text=" ".join(word.text for word in words), words=words)
        yield NBest(utt_id=f"u{n:06}", system=f"m{member}", hyps=(hyp,))


class Cost(NamedTuple):
    s: float  # wall
    cpu_s: float  # of all processes
    mb: int  # of the largest process


def run(command: Sequence[str], folder: Path) -> Cost:
    """Run a command and return what it took."""
    started = time.perf_counter()
    child = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment()
    )
    assert child.stderr is not None
    message = child.stderr.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stderr.close()
    if child.returncode:
        raise RuntimeError(f"{command[:4]} failed: {message[-500:]}")
    seconds = time.perf_counter() - started
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(round(seconds, 3), round(cpu, 3), usage.ru_maxrss // 1024)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def measure(
    utts: int, members: int, rover_utts: int, rounds: int, *, default: bool
) -> dict[str, object]:
    """Return the costs of rover and of our commands, and how many times faster ours are."""
    method, alpha, null = RULE
    rule = ["--method", method, "--alpha", alpha, "--null-conf", null]
    rover = sctk_command("rover")
    for member in range(members):
        rover += ["-h", f"r{member}.ctm", "ctm"]
    rover += ["-o", "rover.ctm", "-m", method, "-a", alpha, "-c", null, "-f", "0"]

    def ours(kind: str, out: str, *options: str, of: str = "m") -> list[str]:
        names = [f"{of}{member}.{kind}" for member in range(members)]
        return [sys.executable, "-m", "fusion.rover", *names, "--out", out, *options]

    commands = {
        "exact, CTM": ours("ctm", "exact.ctm", "--exact", *rule),
        "exact, CTM, one process": ours("ctm", "one.ctm", "--exact", *rule, "--nj", "1"),
        "exact, JSON Lines": ours("jsonl", "exact.jsonl", "--exact", *rule),
    }
    if default:
        commands["default, JSON Lines"] = ours("jsonl", "default.jsonl")
        commands["default, texts alone"] = ours("jsonl", "texts.jsonl", of="t")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Elsewhere: a command's memory is counted from that of the process that starts it.
        writer = multiprocessing.Process(
            target=write_members, args=(folder, utts, members, rover_utts)
        )
        writer.start()
        writer.join()
        runs: dict[str, Cost] = {}
        for _ in range(rounds):
            for label, command in commands.items():
                cost = run(command, folder)
                runs[label] = min(cost, runs.get(label, cost))
        runs["rover"] = run(rover, folder)
        theirs = (folder / "rover.ctm").read_bytes()
        same = (folder / "exact.ctm").read_bytes().startswith(theirs)
        same &= (folder / "one.ctm").read_bytes() == (folder / "exact.ctm").read_bytes()
    rover_s, rover_cpu = (cost * utts / rover_utts for cost in runs["rover"][:2])
    return {
        "utts": utts,
        "members": members,
        "rover_utts": rover_utts,
        "same_bytes": same,
        "runs": {label: cost._asdict() for label, cost in runs.items()},
        "times_faster": {
            label: [round(rover_s / cost.s, 1), round(rover_cpu / cost.cpu_s, 1)]
            for label, cost in runs.items()
            if label != "rover"
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--utts", type=int, default=64000)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--rover-utts", type=int, help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--default", action="store_true", help="measure the default mode too")
    args = parser.parse_args()
    rover_utts = args.rover_utts or args.utts
    done = measure(args.utts, args.members, rover_utts, args.rounds, default=args.default)
    print(json.dumps(done, indent=1))


if __name__ == "__main__":
    main()
