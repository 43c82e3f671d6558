"""TRN, CTM, STM and SegLST: what is written reads back the same, and bad lines are named."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from manifests import Hypothesis, NBest, RowError, Utterance, Word
from manifests.formats import ctm, seglst, stm, trn
from manifests.formats.lines import format_number

quick = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Any printable word, the formats' own mark-up left out (it is refused, see below).
word = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="{}@<>;*"),
    min_size=1,
    max_size=8,
).filter(lambda w: w.split() == [w])
text = st.lists(word, max_size=8).map(" ".join)
utt_id = st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True)
seconds = st.floats(0, 1e6, allow_nan=False)
probability = st.floats(0, 1, allow_nan=False)


@given(seconds)
@example(5.960464477539063e-08)
def test_numbers_read_back_exactly_without_exponent(value: float) -> None:
    written = format_number(value)
    assert float(written) == value
    assert "e" not in written


@quick
@given(st.lists(st.builds(trn.TrnLine, utt_id, text)))
def test_trn_round_trip(tmp_path: Path, lines: list[trn.TrnLine]) -> None:
    path = tmp_path / "x.trn"
    assert trn.write_trn(path, lines) == len(lines)
    assert list(trn.read_trn(path)) == lines


@quick
@given(
    st.lists(
        st.builds(ctm.CtmLine, utt_id, utt_id, seconds, seconds, word, st.none() | probability)
    )
)
def test_ctm_round_trip(tmp_path: Path, lines: list[ctm.CtmLine]) -> None:
    path = tmp_path / "x.ctm"
    assert ctm.write_ctm(path, lines) == len(lines)
    assert list(ctm.read_ctm(path)) == lines


@st.composite
def stm_lines(draw: st.DrawFn) -> stm.StmLine:
    start, end = sorted((draw(seconds), draw(seconds)))
    label = draw(st.none() | st.sampled_from(["o", "o,f0,male", ""]))
    return stm.StmLine(draw(utt_id), "1", draw(word), start, end, draw(text), label)


@quick
@given(st.lists(stm_lines()))
def test_stm_round_trip(tmp_path: Path, lines: list[stm.StmLine]) -> None:
    path = tmp_path / "x.stm"
    assert stm.write_stm(path, lines) == len(lines)
    assert list(stm.read_stm(path)) == lines


@st.composite
def segments(draw: st.DrawFn) -> seglst.SegLstSegment:
    times = sorted((draw(seconds), draw(seconds)))
    start, end = draw(st.sampled_from([(None, None), tuple(times), (times[0], None)]))
    return seglst.SegLstSegment(
        session_id=draw(st.text()),
        words=draw(st.text()),
        speaker=draw(st.none() | st.text()),
        start_time=start,
        end_time=end,
    )


@quick
@given(st.lists(segments()))
def test_seglst_round_trip(tmp_path: Path, rows: list[seglst.SegLstSegment]) -> None:
    path = tmp_path / "x.json"
    assert seglst.write_seglst(path, rows) == len(rows)
    assert seglst.read_seglst(path) == rows
    assert len(json.loads(path.read_text())) == len(rows)


def nbest(words: tuple[Word, ...]) -> NBest:
    joined = " ".join(w.text for w in words)
    return NBest(utt_id="u", system="s", hyps=(Hypothesis(text=joined, words=words),))


@st.composite
def timed_words(draw: st.DrawFn) -> tuple[Word, ...]:
    marks = sorted(draw(st.lists(st.integers(0, 10**6), min_size=2, max_size=12, unique=True)))
    return tuple(
        Word(
            text=draw(word), start=a / 1000, end=b / 1000, confidence=draw(st.none() | probability)
        )
        for a, b in pairwise(marks)
    )


@given(timed_words())
def test_ctm_keeps_words_times_and_absent_confidences(words: tuple[Word, ...]) -> None:
    row = nbest(words)
    assert ctm.to_nbests(reversed(ctm.from_nbest(row)), "s") == [row]


@given(utt_id, text)
def test_trn_and_seglst_keep_hypotheses(name: str, said: str) -> None:
    row = NBest(utt_id=name, system="s", hyps=(Hypothesis(text=said),))
    assert trn.TrnLine.from_nbest(row).to_nbest("s") == row
    assert seglst.SegLstSegment.from_nbest(row).to_nbest("s") == row


def test_ctm_gives_silent_utterances_when_told_of_them() -> None:
    lines = [ctm.CtmLine("b", "1", 0.0, 0.1, "i")]
    rows = ctm.to_nbests(lines, "s", ["a", "b"])
    assert [(row.utt_id, row.best.text) for row in rows] == [("a", ""), ("b", "i")]
    with pytest.raises(ValueError, match="'b', which is not among"):
        ctm.to_nbests(lines, "s", ["a"])


def test_ctm_missing_confidence_is_absent_not_zero() -> None:
    assert ctm.CtmLine.parse("u 1 0 1 a").confidence is None
    assert ctm.CtmLine.parse("u 1 0 1 a NA").confidence is None
    assert ctm.CtmLine.parse("u 1 0 1 a 0").confidence == 0


def test_ctm_refuses_two_channels_of_one_file() -> None:
    lines = [ctm.CtmLine("u", channel, 0.0, 0.1, "i") for channel in "AB"]
    with pytest.raises(ValueError, match="u: has channels 'A' and 'B'"):
        ctm.to_nbests(lines, "s")


def test_ctm_needs_times() -> None:
    with pytest.raises(ValueError, match="u: word 'a' has no time"):
        ctm.from_nbest(nbest((Word(text="a"),)))
    with pytest.raises(ValueError, match="u: words are absent"):
        ctm.from_nbest(NBest(utt_id="u", system="s", hyps=(Hypothesis(text="a"),)))


def test_stm_makes_utterances() -> None:
    line = stm.StmLine.parse("rec A anna 1.5 4.0 <o> he goed")
    row = line.to_utterance("rec-1", "rec.flac")
    assert (row.offset, row.duration, row.speaker, row.text) == (1.5, 2.5, "anna", "he goed")
    ignored = stm.StmLine.parse(f"rec A anna 0 1 {stm.IGNORE}").to_utterance("r", "rec.flac")
    assert ignored.text is None


def test_blind_utterance_is_no_reference() -> None:
    blind = Utterance(utt_id="u", audio_filepath="x", duration=1)
    for convert in (
        trn.TrnLine.from_utterance,
        stm.StmLine.from_utterance,
        seglst.SegLstSegment.from_utterance,
    ):
        with pytest.raises(ValueError, match="u: text is absent"):
            convert(blind)


@pytest.mark.parametrize(
    ("reader", "good", "bad", "rule"),
    [
        (trn.read_trn, "(u)", "no id", "must end in"),
        (trn.read_trn, ";; c\n** c\na (u)", "{ a / b } (u)", "alternatives"),
        (trn.read_trn, "\n(um) a (u)", "a @ (u)", "no word at all"),
        (ctm.read_ctm, ";; c", "u 1 0 1", "must be: file channel"),
        (ctm.read_ctm, "u 1 0 1 a", "u 1 * * <ALT_BEGIN>", "alternatives"),
        (ctm.read_ctm, "", "u 1 0 -1 a", "duration is -1 s, must be >= 0"),
        (ctm.read_ctm, "", "u 1 nan 1 a", "start is nan s"),
        (ctm.read_ctm, "", "u 1 x 1 a", "start is 'x', must be a number"),
        (ctm.read_ctm, "", "u 1 0 1 a 1.2", r"confidence is 1.2, must lie in \[0, 1\]"),
        (stm.read_stm, ";; c\nu 1 s 0 1", "u 1 s 0", "must be: file channel speaker"),
        (stm.read_stm, "", "u 1 s 2 1 a", "end is 1 s, must not be before start 2 s"),
        (stm.read_stm, "", "u 1 s 0 1 {a / b}", "alternatives"),
        (stm.read_stm, "", "\udcff", "utf-8"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, reader, good: str, bad: str, rule: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "x"
    lines = [*good.split("\n"), bad]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    with pytest.raises(RowError, match=rf"x:{len(lines)}: .*{rule}"):
        list(reader(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "must be a JSON list"),
        ('[{"session_id":"a","words":""},{"words":"b"}]', "segment 2: .*session_id"),
        ('[{"session_id":"a","words":"","start_time":2,"end_time":1}]', "segment 1: end_time is 1"),
    ],
)
def test_bad_seglst_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(RowError, match=rf"x.json: .*{message}|x.json: {message}"):
        seglst.read_seglst(path)


def test_seglst_reads_numbers_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[{"session_id":"a","words":"b","start_time":"1.5","end_index":3}]')
    assert seglst.read_seglst(path)[0].start_time == 1.5


@pytest.mark.parametrize("said", ["a  b", " a", "a\nb", "{", "a }", "@", ";; a", "** a"])
def test_trn_refuses_what_would_not_read_back(said: str) -> None:
    with pytest.raises(ValueError, match="text"):
        trn.TrnLine("u", said).serialize()


def test_a_byte_order_mark_is_no_part_of_the_first_word_or_id(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("he goed (a-1)\n", encoding="utf-8-sig")
    assert list(trn.read_trn(path)) == [trn.TrnLine("a-1", "he goed")]
    path.write_text("a 1 0 1 he\n", encoding="utf-8-sig")
    assert [line.file for line in ctm.read_ctm(path)] == ["a"]
    path.write_text("a 1 s 0 1 he\n", encoding="utf-8-sig")
    assert [line.file for line in stm.read_stm(path)] == ["a"]
    path.write_text("[]", encoding="utf-8-sig")
    assert seglst.read_seglst(path) == []
    marked = [trn.TrnLine("a", "\ufeff he"), trn.TrnLine("b", "\ufeff")]
    trn.write_trn(path, marked)
    assert list(trn.read_trn(path)) == marked


def test_failed_write_leaves_no_file(tmp_path: Path) -> None:
    lines = [trn.TrnLine("u", "a"), trn.TrnLine("u v", "a")]
    with pytest.raises(ValueError, match="utt_id"):
        trn.write_trn(tmp_path / "x.trn", lines)
    assert not (tmp_path / "x.trn").exists()
