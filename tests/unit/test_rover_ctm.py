"""CTM as the command reads and writes it, and what NIST makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fusion.records
from fusion.batch import Part
from fusion.nist.columns import NULL, Vocabulary
from fusion.nist.ctm_columns import _any_fields, _same_fields, has_confidences
from fusion.nist.rule import Rule
from fusion.nist.segments import common_pauses
from fusion.records import read_ctm_records
from fusion.rover import rover
from fusion.voting.vote import VoteOptions
from manifests import read_nbest
from tests.unit.hypotheses import members, row, written

CTM = """\
;; made by hand
U1 A 0.0 0.1 a 0.5
U1 A 0.2 0.1 b 0.5
;; in between
U1  A 0.4 0.1 c 0.5

U1 B 0.0 0.1 d NA
U2 A 0.0 0.1 e 0.5 1
"""


@pytest.mark.parametrize("read", [1, 30, 1 << 20])
def test_a_ctm_is_cut_by_file_and_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    monkeypatch.setattr(fusion.records, "_READ", read)
    path = written(tmp_path / "a.ctm", CTM)
    found = [(name, data.split()[4::6][:1]) for name, (_, data) in read_ctm_records(path)]
    assert found == [("U1 A", [b"a"]), ("U1 B", [b"d"]), ("U2 A", [b"e"])]
    offsets = [offset for _, (offset, _) in read_ctm_records(path)]
    assert [CTM.encode()[offset:][:4] for offset in offsets] == [b"U1 A", b"U1 B", b"U2 A"]


@pytest.mark.parametrize("confidence", ["0.5", "1", ".5", "5e-1", "+0.5", "NA", ""])
def test_numbers_of_a_ctm(tmp_path: Path, confidence: str) -> None:
    """Whatever way they are written, and mixed with lines that have none."""
    for text in (f"u 1 .5 1e-1 a {confidence}\n", f"u 1 0.5 0.1 a {confidence}\nu 1 1 0.1 b"):
        path, out = written(tmp_path / "a.ctm", text), tmp_path / "out.ctm"
        rover([path, path], out, Rule())
        none = confidence in ("NA", "")
        value = -1 if none else float(confidence)
        assert out.read_text().splitlines()[0] == f"u 1 0.500 0.100 a {value:.6f}"
        assert has_confidences(path) != none


FIELD = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=4).filter(
    lambda text: text.lower() != "<alt"  # refused
)
NUMBER = st.floats(0, 1e5, width=32).map(str) | st.sampled_from(["0", "007", "1.", "1e-3", "0.1"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.tuples(NUMBER, NUMBER, FIELD, NUMBER), max_size=4), min_size=1),
    st.booleans(),
)
def test_a_table_is_what_its_lines_are(
    utterances: list[list[tuple[str, str, str, str]]], graded: bool
) -> None:
    """The fast way reads no character of a word as anything else."""
    names = [f"u{n} 1" for n in range(len(utterances))]
    records = [
        "".join(f"{name} {' '.join(line if graded else line[:3])}\n" for line in lines).encode()
        for name, lines in zip(names, utterances, strict=True)
    ]
    part = Part(b"".join(records), [0 if data else -1 for data in records], list(map(len, records)))
    vocabulary = Vocabulary()
    slow = _any_fields(Path("x.ctm"), part, vocabulary)
    fast = _same_fields(names, part, vocabulary)
    if not part.data:
        return
    assert fast is not None
    assert fast.words.tolist() == slow.words.tolist()
    assert fast.counts.tolist() == slow.counts.tolist()
    for field in ("start", "duration", "confidence"):
        assert_array_equal(getattr(fast, field), getattr(slow, field))


def test_files_in_another_order_and_without_a_last_newline(tmp_path: Path) -> None:
    one = written(tmp_path / "a.ctm", "u 1 0 1 x 1\nv 1 0 1 y 1\nw 1 0 1 z 1")
    other = written(tmp_path / "b.ctm", "w 1 0 1 z 1\nv 1 0 1 y 1\nu 1 0 1 x 1")
    rover([one, other], tmp_path / "out.ctm", Rule())
    lines = (tmp_path / "out.ctm").read_text().splitlines()
    assert sorted(line.split()[0] + line.split()[4] for line in lines) == ["ux", "vy", "wz"]


def test_a_ctm_keeps_ids_and_may_become_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ctm", "Anna-1 A 0.5 0.1 Caf\u00c9 0.5\n")
    rover([path], tmp_path / "out.ctm", Rule())
    assert (tmp_path / "out.ctm").read_text() == "Anna-1 A 0.500 0.100 caf\u00c9 0.500000\n"
    for options in (Rule(), VoteOptions()):
        rover([path, path], tmp_path / "out.jsonl", options)
        (found,) = read_nbest(tmp_path / "out.jsonl")
        assert found.utt_id == "Anna-1"
        assert (found.best.words or ())[0].start == 0.5


@pytest.mark.parametrize("options", [Rule(), VoteOptions()])
def test_rows_become_a_ctm(tmp_path: Path, options: Rule | VoteOptions) -> None:
    rows = [row("a", "x y", [0.5, 0.5], timed=True), row("b", "")]
    out = tmp_path / "out.ctm"
    rover(members(tmp_path, rows, rows), out, options)
    assert [line.split()[:5] for line in out.read_text().splitlines()] == [
        ["a", "1", *times, word]
        for times, word in zip(
            [("0.000", "0.300"), ("0.400", "0.300")]
            if isinstance(options, Rule)
            else [("0.0", "0.3"), ("0.4", "0.3")],
            "xy",
            strict=True,
        )
    ]


def test_the_number_of_processes_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusion.records, "_BATCH", 7)
    paths = [
        written(
            tmp_path / f"m{k}.ctm",
            "".join(
                f"u{n} 1 {w / 2} 0.4 {'abc'[n * w * k % 3]} 0.{n}\n"
                for n in range(50)
                for w in range(4)
            ),
        )
        for k in (1, 2, 4)
    ]
    outs = [tmp_path / f"out{jobs}.ctm" for jobs in (1, 3)]
    for out, jobs in zip(outs, (1, 3), strict=True):
        rover(paths, out, Rule("avgconf", 0.5, 0.2), jobs=jobs)
    assert outs[0].read_bytes() == outs[1].read_bytes() != b""


def test_pandas_is_not_loaded(tmp_path: Path) -> None:
    """Arrow would import it behind our back, which takes longer than a batch."""
    path = written(tmp_path / "a.ctm", "u 1 0 1 a 1\n")
    code = (
        "import sys; from fusion.rover import main; "
        f"main([{str(path)!r}, '--out', {str(tmp_path / 'o.ctm')!r}, '--exact']); "
        "assert 'pyarrow' in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_numbers_of_words() -> None:
    vocabulary = Vocabulary()
    words = ["a", "A", "a", "a*", "\u00c9", "\u00e9", "@", "", "**"]
    assert vocabulary.numbers(words) == [1, 1, 1, 1, 2, 3, NULL, NULL, 4]
    assert vocabulary.texts == ["@", "a", "\u00c9", "\u00e9", "*"]


def test_a_pause_must_be_common() -> None:
    starts, ends = [[0.0, 3.0], [0.0, 0.9]], [[0.5, 3.5], [0.8, 3.5]]
    # The second one's words leave 0.1 s of the first one's pause.
    assert list(common_pauses(starts, ends)) == [([0, 0], [1, 1]), ([1, 1], [2, 2])]
    ends[1][0] = 0.9
    assert list(common_pauses(starts, ends)) == [([0, 0], [2, 2])]
