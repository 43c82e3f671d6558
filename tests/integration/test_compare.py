"""The command scoring.compare, with sc_stats."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from manifests import Hypothesis, NBest, Utterance, write_rows
from scoring.compare import compare, format_comparison
from scoring.compare import main as compare_main
from scoring.mapsswe import mapsswe


def utterance(i: int, text: str, speaker: str | None = None) -> Utterance:
    return Utterance(
        utt_id=f"u{i}", audio_filepath=f"u{i}.flac", duration=2.0, text=text, speaker=speaker
    )


def heard(i: int, text: str, system: str) -> NBest:
    return NBest(utt_id=f"u{i}", system=system, hyps=(Hypothesis(text=text),))


def corpus(tmp_path: Path, rates: Sequence[float], count: int = 300) -> list[Path]:
    """Write a manifest and one hypothesis file per error rate; one-letter words throughout."""
    rng = random.Random(5)
    vocabulary = [chr(ord("a") + i) for i in range(12)]
    texts = [rng.choices(vocabulary, k=rng.randint(0, 10)) for _ in range(count)]
    refs = [utterance(i, " ".join(t), f"c{i % 20}") for i, t in enumerate(texts)]
    paths = [tmp_path / "ref.jsonl"]
    write_rows(paths[0], refs)
    for k, rate in enumerate(rates):
        rows = []
        for i, words in enumerate(texts):
            wrong = [rng.choice(vocabulary) if rng.random() < rate else w for w in words]
            rows.append(heard(i, " ".join(wrong), system=f"s{k}"))
        paths.append(tmp_path / f"{k}.jsonl")
        write_rows(paths[-1], rows)
    return paths


def test_a_better_system_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ref, worse, better = corpus(tmp_path, [0.3, 0.15])
    result = compare(ref, worse, better)
    assert result.better == "s1"
    assert result.mapsswe.p < 0.001
    assert result.p_bootstrap is not None
    assert result.p_bootstrap < 0.001
    low, high = result.ci95 or (0, 0)
    assert 0 < low < result.difference < high
    assert result.units == 20
    swapped = compare(ref, better, worse)
    assert swapped.better == "s1"
    assert swapped.mapsswe.z == -result.mapsswe.z
    assert compare_main(["--ref", str(ref), "--hyp", str(worse), str(better)]) == 0
    assert "s1 is better (p < 0.05 in both tests)" in capsys.readouterr().out
    assert compare_main(["--ref", str(ref), "--hyp", str(worse), str(better), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["better"] == "s1"


def test_equal_systems_are_not_told_apart(tmp_path: Path) -> None:
    ref, first, second, same = *corpus(tmp_path, [0.2, 0.2]), tmp_path / "same.jsonl"
    result = compare(ref, first, second)
    assert result.better is None
    assert "no difference is shown" in format_comparison(result)
    shutil.copy(first, same)
    identical = compare(ref, first, same)
    assert (identical.difference, identical.p_bootstrap, identical.mapsswe.p) == (0, 1, 1)
    assert "same number of errors" in format_comparison(identical)


def test_two_perfect_systems_do_not_crash_sc_stats(tmp_path: Path) -> None:
    """sc_stats dies with SIGSEGV where there is no error to make a segment of."""
    ref, first, second = corpus(tmp_path, [0.0, 0.0], count=5)
    result = compare(ref, first, second)
    assert (result.mapsswe.segments, result.mapsswe.p, result.better) == (0, 1.0, None)


def test_no_words_to_compare_is_an_error(tmp_path: Path) -> None:
    write_rows(tmp_path / "r.jsonl", [utterance(0, "um")])
    for name in "ab":
        write_rows(tmp_path / f"{name}.jsonl", [heard(0, "um", system=name)])
    with pytest.raises(ValueError, match="has no words after normalisation"):
        compare(*(tmp_path / f"{name}.jsonl" for name in "rab"))


def test_mapsswe_of_single_error_segments_is_the_paired_z_test() -> None:
    """With errors far apart every segment holds one error, so the statistic has a closed form."""
    said = [f"w{i}" for i in range(12)]
    wrong = [*said[:6], "x", *said[7:]]
    only_first, only_second, both = 30, 12, 8
    rows = [utterance(i, "") for i in range(only_first + only_second + both)]
    first = [wrong] * only_first + [said] * only_second + [wrong] * both
    second = [said] * only_first + [wrong] * (only_second + both)
    result = mapsswe(rows, [said] * len(rows), first, second)
    differences = [1] * only_first + [-1] * only_second + [0] * both
    n = len(differences)
    mean = sum(differences) / n
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
    assert result.segments == n
    assert result.z == pytest.approx(mean / (deviation / math.sqrt(n)), abs=2e-3)
    assert result.p == pytest.approx(math.erfc(abs(result.z) / math.sqrt(2)))


def test_a_system_that_only_mends_is_better(tmp_path: Path) -> None:
    """All segments differ by one error: no variance, from which sc_stats makes Z = 0."""
    said = "he goed to the big house"
    write_rows(tmp_path / "r.jsonl", (utterance(i, said, speaker=f"c{i % 9}") for i in range(60)))
    texts = [said.replace("big", "pig") if i < 20 else said for i in range(60)]
    write_rows(tmp_path / "a.jsonl", (heard(i, text, "a") for i, text in enumerate(texts)))
    write_rows(tmp_path / "b.jsonl", (heard(i, said, "b") for i in range(60)))
    result = compare(*(tmp_path / f"{name}.jsonl" for name in "rab"))
    assert (result.mapsswe.segments, result.mapsswe.mean) == (20, 1.0)
    assert result.mapsswe.p == 2**-19
    assert result.mapsswe.z == pytest.approx(math.sqrt(20))
    assert result.better == "b"


def test_one_segment_shows_nothing() -> None:
    rows = [utterance(0, "")]
    result = mapsswe(rows, [["a", "b"]], [["a", "c"]], [["a", "b"]])
    assert (result.segments, result.z, result.p) == (1, 1.0, 1.0)
