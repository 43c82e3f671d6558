"""Shards are put together in the manifest's order, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import Hypothesis, NBest, Utterance, read_nbest, write_rows
from manifests.meta import meta_path
from systems.decode import parse_shard, take_shard
from systems.merge import main, merge


def utterances(ids: str) -> list[Utterance]:
    return [Utterance(utt_id=one, audio_filepath=f"{one}.wav", duration=1.0) for one in ids]


def hyps(folder: Path, name: str, ids: str) -> Path:
    rows = [NBest(utt_id=i, system="s", hyps=(Hypothesis(text=f"heard {i}"),)) for i in ids]
    write_rows(folder / name, rows)
    return folder / name


def test_the_manifests_order_is_restored(tmp_path: Path) -> None:
    write_rows(tmp_path / "m.jsonl", utterances("abcdef"))
    shards = [hyps(tmp_path, "1.jsonl", "fba"), hyps(tmp_path, "2.jsonl", "ecd")]
    out = tmp_path / "out.jsonl"
    assert merge(tmp_path / "m.jsonl", shards, out) == 6
    assert [row.utt_id for row in read_nbest(out)] == list("abcdef")
    assert [row.best.text for row in read_nbest(out)] == [f"heard {i}" for i in "abcdef"]
    assert meta_path(out).exists()
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.jsonl", "out.meta.json"]


def test_every_kind_of_mismatch_is_listed_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "m.jsonl", utterances("abc"))
    shards = [hyps(tmp_path, "1.jsonl", "ab"), hyps(tmp_path, "2.jsonl", "bx")]
    out = tmp_path / "out.jsonl"
    status = main(["--manifest", str(tmp_path / "m.jsonl"), "--out", str(out), *map(str, shards)])
    assert status == 1
    assert capsys.readouterr().err == "merge: 1 missing: c; 1 doubled: b; 1 unknown: x\n"
    assert not out.exists()


def test_a_torn_shard_is_refused_with_its_place(tmp_path: Path) -> None:
    write_rows(tmp_path / "m.jsonl", utterances("ab"))
    shard = hyps(tmp_path, "1.jsonl", "ab")
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"1\.jsonl@"):
        merge(tmp_path / "m.jsonl", [shard], tmp_path / "out.jsonl")


@given(st.lists(st.floats(0.1, 60.0), min_size=1, max_size=60), st.integers(1, 7))
def test_shards_are_a_balanced_partition_in_order(lengths: list[float], count: int) -> None:
    rows = [
        Utterance(utt_id=f"u{n}", audio_filepath="x", duration=length)
        for n, length in enumerate(lengths)
    ]
    shards = [take_shard(rows, k, count) for k in range(1, count + 1)]
    order = [row.utt_id for row in rows]
    assert sorted(row.utt_id for shard in shards for row in shard) == sorted(order)
    for shard in shards:
        positions = [order.index(row.utt_id) for row in shard]
        assert positions == sorted(positions)
    sums = [sum(row.duration for row in shard) for shard in shards]
    assert max(sums) - min(sums) <= max(lengths) + 1e-9


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "a/b", "1/0", "-1/2", ""])
def test_bad_shards_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be K/N"):
        parse_shard(text)
