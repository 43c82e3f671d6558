"""Against NIST's rover itself: the same bytes; and what we do where it fails."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from fusion.nist.rule import METHODS, Rule
from fusion.rover import main, rover
from scoring.sctk import sctk_command

# What is folded, cut or has a meaning of its own.
NASTY = [
    "A",
    "a",
    "b*",
    "B",
    "\u00c9COLE",
    "\u00e9cole",
    "I'M",
    "i'm",
    "-",
    "*",
    "%HESITATION",
    "(c)",
]

END = [(0.0, "the"), (0.1, "end")]

Confidence = Callable[[random.Random], float | None]
CONFIDENCES: dict[str, Confidence] = {
    "fine": lambda draw: round(draw.random(), 3),
    "coarse": lambda draw: draw.choice([0.1, 0.5, 0.9, 1.0]),
    "often 0": lambda draw: draw.choice([0, 0, 0.5, 1]),
    "any sign": lambda draw: round(draw.uniform(-1, 2), 2),
    "some missing": lambda draw: draw.choice([0.3, 0.8, None]),
    "none": lambda draw: None,
}


class Timed(NamedTuple):
    start: float
    duration: float
    text: str
    confidence: float | None


Utterance = list[list[Timed]]  # of each member


def hear(
    draw: random.Random, members: int, words: Sequence[str], confidence: Confidence, pauses: bool
) -> Utterance:
    """Return what the members hear of one utterance, at least a word each."""
    said = draw.choices(words, k=draw.randint(1, draw.choice([2, 6, 20])))
    heard = []
    for _ in range(members):
        texts = []
        for word in said:
            dice = draw.random()
            if dice < 0.1:
                continue
            if dice < 0.35:
                texts.append(draw.choice(words))
            if dice >= 0.25:
                texts.append(word)
        start, row = draw.random(), []
        for text in texts or [draw.choice(words)]:
            duration = round(draw.uniform(0.05, 0.3), 2)
            row.append(Timed(round(start, 2), duration, text, confidence(draw)))
            start += duration
            if pauses and draw.random() < 0.3:
                start += draw.choice([0.0, 0.05, 0.98, 1.2, 2.5])
        heard.append(row)
    return heard


def write(folder: Path, utterances: Sequence[Utterance], *, end: bool = True) -> list[Path]:
    """Write a CTM for each member.

    ``end`` adds an utterance of two words, since rover loses a last one of a single word.
    """
    paths = []
    for member in range(len(utterances[0])):
        lines = [
            f"u{n:04} 1 {start} {duration} {text}{'' if c is None else f' {c}'}\n"
            for n, utterance in enumerate(utterances)
            for start, duration, text, c in utterance[member]
        ]
        if end:
            graded = any(word.confidence is not None for u in utterances for word in u[member])
            lines += [f"zz 1 {t} 0.1 {word}{' 0.9' * graded}\n" for t, word in END]
        paths.append(folder / f"m{member}.ctm")
        paths[-1].write_text("".join(lines), encoding="utf-8")
    return paths


def nist(paths: Sequence[Path], rule: Rule) -> tuple[int, bytes]:
    """Return NIST's exit status and what it wrote."""
    out = paths[0].with_name("nist.out")
    out.unlink(missing_ok=True)
    command = sctk_command("rover")
    for path in paths:
        command += ["-h", path.name, "ctm"]
    command += ["-o", out.name, "-m", rule.method, "-f", "0"]
    command += ["-a", str(rule.alpha), "-c", str(rule.null_confidence)]
    done = subprocess.run(command, cwd=paths[0].parent, capture_output=True)
    return done.returncode, out.read_bytes() if out.exists() else b""


def ours(paths: Sequence[Path], rule: Rule) -> bytes:
    out = paths[0].with_name("ours.ctm")
    rover(paths, out, rule, jobs=1)
    return out.read_bytes()


def draw_rule(draw: random.Random) -> Rule:
    return Rule(
        draw.choice(METHODS),
        draw.choice([0.0, 0.2, 0.5, 0.8, 1.0]),
        draw.choice([0.0, 0.1, 0.5, 0.7, 1.0, -0.3]),
    )


@pytest.mark.parametrize("seed", range(36))
def test_generated_transcripts(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    members = draw.randint(2, 12)
    words = draw.choice([list("ab"), list("abcde"), list("abcdefghijkl"), NASTY, ["@", *"abc"]])
    confidence = list(CONFIDENCES.values())[seed % len(CONFIDENCES)]
    utterances = [hear(draw, members, words, confidence, pauses=False) for _ in range(40)]
    rule = draw_rule(draw)
    paths = write(tmp_path, utterances)
    status, theirs = nist(paths, rule)
    found = ours(paths, rule)
    if status:  # it may find no best word; what it has written until then is right
        theirs = theirs[: theirs.rfind(b"\n") + 1]
        assert found[: len(theirs)] == theirs
        assert found.count(b"\n") > theirs.count(b"\n")
    else:
        assert found == theirs


@pytest.mark.parametrize("seed", range(120))
def test_pauses(tmp_path: Path, seed: int) -> None:
    """One utterance a time: rover may take a word of the next one for a silent member's."""
    draw = random.Random(seed)
    members = draw.randint(2, 6)
    utterance = hear(draw, members, list("abcdef"), CONFIDENCES["fine"], pauses=True)
    if seed % 3 == 0:  # words that overlap, in any order
        utterance = [
            [w._replace(start=round(abs(w.start + draw.uniform(-1, 1)), 2)) for w in row]
            for row in utterance
        ]
    if all(len(row) == 1 for row in utterance):
        return
    rule = draw_rule(draw)
    paths = write(tmp_path, [utterance], end=False)
    status, theirs = nist(paths, rule)
    assert status or ours(paths, rule) == theirs


def test_one_member_has_no_confidences(tmp_path: Path) -> None:
    draw = random.Random(1)
    graded = [hear(draw, 2, "abcd", CONFIDENCES["fine"], pauses=False) for _ in range(50)]
    plain = [hear(draw, 2, "abcd", CONFIDENCES["none"], pauses=False) for _ in range(50)]
    paths = write(tmp_path, [a + b for a, b in zip(graded, plain, strict=True)])
    for method in METHODS:
        rule = Rule(method, 0.4, 0.2)
        assert nist(paths, rule) == (0, ours(paths, rule))


def test_the_published_example(tmp_path: Path, shared_data: Path) -> None:
    demo = shared_data / "sctk_rover_demo"
    members = [str(demo / f"sys{n}.ctm") for n in (1, 2, 3)]
    out = tmp_path / "fused.ctm"
    assert main([*members, "--out", str(out), "--exact", "--method", "avgconf"]) == 0
    assert out.read_bytes() == (demo / "rover.avgconf.ctm").read_bytes()


def one(*texts: str, confidence: float | None = 0.5) -> list[Timed]:
    return [Timed(0.1 * n, 0.1, text, confidence) for n, text in enumerate(texts)]


def said(ctm: bytes) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for line in ctm.decode().splitlines():
        words.setdefault(line.split()[0], []).append(line.split()[4])
    return words


def test_where_rover_stops_at_a_silent_member(tmp_path: Path) -> None:
    paths = write(tmp_path, [[one("a", "b"), [], one("a", "b")]])
    assert nist(paths, Rule())[0] != 0
    assert said(ours(paths, Rule()))["u0000"] == ["a", "b"]
    # Of three votes two are for silence.
    paths = write(tmp_path, [[one("a", "b"), [], []], [[], one("c"), []]])
    assert said(ours(paths, Rule())) == {"zz": ["the", "end"]}


def test_where_rover_finds_no_best_word(tmp_path: Path) -> None:
    """All confidences 0 with avgconf, at any alpha; no score above -1."""
    silent = [one("a", confidence=0), one("b", confidence=0), one("b", confidence=0)]
    for alpha in (0.0, 0.5, 1.0):
        paths = write(tmp_path, [silent])
        assert nist(paths, Rule("avgconf", alpha))[0] != 0
        assert said(ours(paths, Rule("avgconf", alpha)))["u0000"] == ["b"]
    ungraded = [one("a", confidence=None), one("b", confidence=None), one("b", confidence=None)]
    paths = write(tmp_path, [ungraded])
    assert nist(paths, Rule("meth1", 0.0))[0] != 0
    assert said(ours(paths, Rule("meth1", 0.0)))["u0000"] == ["b"]


def test_where_rover_has_too_many_members(tmp_path: Path) -> None:
    draw = random.Random(1)
    utterance = [one("a", draw.choice("bc"), f"x{n}") for n in range(60)]
    paths = write(tmp_path, [utterance])
    assert nist(paths, Rule())[0] != 0
    assert said(ours(paths, Rule()))["u0000"][0] == "a"


def test_where_rover_takes_a_word_of_the_next_utterance(tmp_path: Path) -> None:
    late = [*one("a", "b"), Timed(5.0, 0.1, "late", 0.5)]
    sure = [Timed(0.0, 0.1, "next", 1.0), *one("x", "y")]
    paths = write(tmp_path, [[late, one("a", "b")], [one("x", "y"), sure]])
    rule = Rule("avgconf", 0.0)
    assert "next" in said(nist(paths, rule)[1])["u0000"]
    assert said(ours(paths, rule))["u0000"] == ["a", "b", "late"]


def test_where_rover_loses_the_last_word(tmp_path: Path) -> None:
    paths = write(tmp_path, [[one("a", "b"), one("a")], [one("c"), one("c")]], end=False)
    assert "u0001" not in said(nist(paths, Rule())[1])
    assert said(ours(paths, Rule()))["u0001"] == ["c"]
