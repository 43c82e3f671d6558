"""`manifests.split`: disjoint, deterministic, and nobody moves when the corpus grows."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import AGE_BUCKETS, Utterance, read_manifest, read_rows, write_rows
from manifests.split import SIDES, assign, crossing_speakers, main, position, split

strata = st.dictionaries(
    st.text("abc0123456789", min_size=1, max_size=4),
    st.sampled_from(AGE_BUCKETS),
    min_size=1,
    max_size=60,
)
shares = st.floats(0.01, 0.4)
seeds = st.integers(0, 1000)


def corpus(path: Path, speakers: int = 40, utts: int = 3, start: int = 0) -> Path:
    """A manifest whose speaker s has age bucket s mod 4; its audio lies in ``wav/``."""
    write_rows(
        path,
        (
            Utterance(
                utt_id=f"s{s}-{i}",
                audio_filepath=f"wav/s{s}-{i}.flac",
                duration=1.5,
                text="yes",
                speaker=f"s{s}",
                session=f"s{s}-{i % 2}",
                age=AGE_BUCKETS[s % 4],
            )
            for s in range(start, start + speakers)
            for i in range(utts)
        ),
    )
    return path


@given(strata, shares, st.one_of(st.just(0.0), shares), seeds)
def test_every_stratum_with_enough_speakers_is_on_every_side(
    strata: dict[str, str], dev: float, test: float, seed: int
) -> None:
    sides = assign(strata, dev=dev, test=test, seed=seed)
    assert sides == assign(dict(reversed(strata.items())), dev=dev, test=test, seed=seed)
    assert sides.keys() == strata.keys()
    wanted = {"train", "dev"} | ({"test"} if test else set())
    for groups in (*({k for k in strata if strata[k] == s} for s in AGE_BUCKETS), set(strata)):
        present = {sides[key] for key in groups}
        if len(groups) >= len(wanted):
            assert present == wanted


@given(strata, strata, shares, st.one_of(st.just(0.0), shares), seeds)
def test_a_stratum_that_the_hash_fills_never_moves(
    old: dict[str, str], new: dict[str, str], dev: float, test: float, seed: int
) -> None:
    before = assign(old, dev=dev, test=test, seed=seed)
    after = assign(new | old, dev=dev, test=test, seed=seed)
    wanted = 3 if test else 2
    for stratum in AGE_BUCKETS:
        keys = [key for key in old if old[key] == stratum]
        if len({hashed(key, dev, test, seed) for key in keys}) == wanted:
            for key in keys:
                assert before[key] == after[key] == hashed(key, dev, test, seed)


def hashed(key: str, dev: float, test: float, seed: int) -> str:
    place = position(key, seed)
    return "test" if place < test else "dev" if place < test + dev else "train"


def test_two_speakers_of_an_age_go_to_train_and_dev() -> None:
    others = {f"other{i}": "8-11" for i in range(20)}
    for seed in range(50):
        sides = assign(others | {"a": "5-7", "b": "5-7"}, dev=0.1, test=0.3, seed=seed)
        assert {sides["a"], sides["b"]} == {"train", "dev"}
        sides = assign(others | {"a": "5-7", "b": "5-7"}, dev=0.1, seed=seed)
        assert {sides["a"], sides["b"]} == {"train", "dev"}


@given(strata, strata, shares, st.one_of(st.just(0.0), shares), seeds, seeds)
def test_with_the_earlier_split_nobody_ever_moves(
    old: dict[str, str], new: dict[str, str], dev: float, test: float, seed: int, other: int
) -> None:
    before = assign(old, dev=dev, test=test, seed=seed)
    after = assign(new | old, dev=dev / 2, test=test, seed=other, previous=before)
    assert before.items() <= after.items()


@pytest.mark.parametrize(("share", "side", "nearest"), [(0.01, "dev", min), (0.99, "train", max)])
def test_the_nearest_fills_an_empty_side(
    share: float, side: str, nearest: Callable[..., str]
) -> None:
    keys = [f"s{i}" for i in range(5)]
    for seed in range(20):
        sides = assign(dict.fromkeys(keys, "5-7"), dev=share, seed=seed)
        if all(0.01 < position(key, seed) < 0.99 for key in keys):
            chosen = nearest(keys, key=lambda key: position(key, seed))
            assert [key for key in keys if sides[key] == side] == [chosen]


def test_growth_moves_nobody_in_a_corpus_of_some_size() -> None:
    ages = {f"speaker{i}": AGE_BUCKETS[i % 4] for i in range(2000)}
    first = dict(list(ages.items())[:1000])
    before, after = assign(first, dev=0.1), assign(ages, dev=0.1)
    assert before.items() <= after.items()
    for age in AGE_BUCKETS:
        share = sum(after[k] == "dev" for k in ages if ages[k] == age) / 500
        assert 0.06 < share < 0.14
    assert assign(ages, dev=0.1, seed=2) != after


def test_a_larger_dev_set_holds_the_smaller_one_and_test_stays() -> None:
    ages = {f"speaker{i}": "5-7" for i in range(500)}
    small, large = (assign(ages, dev=dev, test=0.1) for dev in (0.1, 0.3))
    for side, other in zip(small.values(), large.values(), strict=True):
        assert other == side or (side, other) == ("train", "dev")


def test_twelve_speakers_have_a_dev_set_whatever_the_seed() -> None:
    for seed in range(50):
        sides = Counter(assign({f"s{i}": "5-7" for i in range(12)}, dev=0.1, seed=seed).values())
        assert sides["dev"] >= 1
        assert sides["train"] >= 5


def test_the_written_manifests(tmp_path: Path) -> None:
    manifest = corpus(tmp_path / "data" / "all.jsonl")
    counts = split(manifest, tmp_path / "split", dev=0.2, test=0.1)
    rows = {side: list(read_manifest(tmp_path / "split" / f"{side}.jsonl")) for side in SIDES}
    assert not crossing_speakers(*rows.values())
    everything = sorted((row for side in rows.values() for row in side), key=lambda r: r.utt_id)
    whole = {row.utt_id: row for row in read_manifest(manifest)}
    for row in everything:
        source = whole[row.utt_id]
        assert Path(row.audio_filepath).resolve() == Path(source.audio_filepath)
    assert len(everything) == len(whole) == 120
    order = [row.utt_id for row in whole.values()]
    for side in SIDES:
        positions = [order.index(row.utt_id) for row in rows[side]]
        assert positions == sorted(positions)
        assert counts[side].utts == len(rows[side]) == 3 * counts[side].groups
        assert counts[side].hours == pytest.approx(len(rows[side]) * 1.5 / 3600)
        assert set(counts[side].ages) == set(AGE_BUCKETS)
    relative = next(read_rows(tmp_path / "split" / "dev.jsonl", Utterance)).audio_filepath
    assert relative.startswith("../data/wav/")


def test_absolute_audio_paths_stay(tmp_path: Path) -> None:
    rows = [
        Utterance(utt_id=s, audio_filepath=f"/data/{s}.wav", duration=1, speaker=s) for s in "abcd"
    ]
    write_rows(tmp_path / "all.jsonl", rows)
    split(tmp_path / "all.jsonl", tmp_path / "out", dev=0.3)
    for row in read_rows(tmp_path / "out" / "train.jsonl", Utterance):
        assert row.audio_filepath == f"/data/{row.utt_id}.wav"


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    """Not even for a speaker recorded at two ages: the younger one counts."""
    ages = {"a": ("5-7", "8-11"), "b": ("5-7",), "c": ("8-11",), "d": ("8-11",)}
    rows = [
        Utterance(utt_id=f"{s}{age}", audio_filepath="a", duration=1, speaker=s, age=age)
        for s in ages
        for age in ages[s]
    ]
    write_rows(tmp_path / "x.jsonl", rows)
    write_rows(tmp_path / "y.jsonl", rows[::-1])
    for seed in range(10):
        sides = []
        for name in "xy":
            split(tmp_path / f"{name}.jsonl", tmp_path / name, dev=0.2, seed=seed)
            dev = {row.speaker for row in read_rows(tmp_path / name / "dev.jsonl", Utterance)}
            assert len(dev & {"a", "b"}) == len(dev & {"c", "d"}) == 1
            sides.append(dev)
        assert sides[0] == sides[1]


def test_previous_split_is_kept_when_the_corpus_grows(tmp_path: Path) -> None:
    corpus(tmp_path / "small.jsonl", speakers=6)
    corpus(tmp_path / "large.jsonl", speakers=200)
    split(tmp_path / "small.jsonl", tmp_path / "a", dev=0.1)
    split(tmp_path / "large.jsonl", tmp_path / "b", dev=0.1, seed=7, previous=tmp_path / "a")
    for side in ("train", "dev"):
        before, after = (
            {row.speaker for row in read_rows(tmp_path / d / f"{side}.jsonl", Utterance)}
            for d in "ab"
        )
        assert before < after


def test_by_session(tmp_path: Path) -> None:
    counts = split(corpus(tmp_path / "m.jsonl"), tmp_path / "out", dev=0.5, by="session")
    assert counts["train"].groups + counts["dev"].groups == 80


def test_rows_without_a_speaker_are_named(tmp_path: Path) -> None:
    speakers = ["a", None, "b", None]
    write_rows(
        tmp_path / "m.jsonl",
        [
            Utterance(utt_id=f"u{i}", audio_filepath="a", duration=1, speaker=speaker)
            for i, speaker in enumerate(speakers)
        ],
    )
    with pytest.raises(ValueError, match=r"m\.jsonl:2: speaker is absent, .*2 such rows: 2, 4"):
        split(tmp_path / "m.jsonl", tmp_path / "out", dev=0.5)
    assert not (tmp_path / "out").exists()
    split(tmp_path / "m.jsonl", tmp_path / "out", dev=0.5, by="utt_id")


def test_what_cannot_be_split(tmp_path: Path) -> None:
    one = corpus(tmp_path / "one.jsonl", speakers=1)
    with pytest.raises(ValueError, match="is empty with 1 speaker"):
        split(one, tmp_path / "out", dev=0.5)
    train = corpus(tmp_path / "train.jsonl")
    with pytest.raises(ValueError, match=r"holds train\.jsonl itself, must be another folder"):
        split(train, tmp_path, dev=0.5)
    for dev, test in ((0.0, 0.0), (0.6, 0.4), (-0.1, 0.3), (float("nan"), 0.1)):
        with pytest.raises(ValueError, match="shares are"):
            split(train, tmp_path / "out", dev=dev, test=test)


def test_check_finds_who_crosses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = str(corpus(tmp_path / "a.jsonl", speakers=5))
    b = str(corpus(tmp_path / "b.jsonl", speakers=5, start=5))
    c = str(corpus(tmp_path / "c.jsonl", speakers=2, start=4))
    assert main(["--check", a, b]) == 0
    capsys.readouterr()
    assert main(["--check", a, b, c]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"speaker 's4' is in {a}, {c}, must be in one",
        f"speaker 's5' is in {b}, {c}, must be in one",
    ]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = str(corpus(tmp_path / "m.jsonl"))
    out = tmp_path / "split"
    assert main([manifest, "--out", str(out), "--dev", "0.2", "--seed", "3"]) == 0
    assert "train" in capsys.readouterr().out
    assert main(["--check", str(out / "train.jsonl"), str(out / "dev.jsonl")]) == 0
    assert main([str(tmp_path / "absent.jsonl"), "--out", str(out)]) == 1
    assert "absent.jsonl" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([manifest])
