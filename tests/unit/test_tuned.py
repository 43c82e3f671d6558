"""A tuned file that somebody has edited, or that is none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fusion.apply import main
from fusion.tuning.tuned import Tuned, model_path, read_tuned, write_tuned


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[1, 2]",
        b"\xff\xfe\x00",
        b"method: [mbr",
        b"[" * 100_000,
        b"method: mbr\nmembers: [a]\nranking: [a]\nsettings: 3\n",
        b"method: mbr\nmembers: [a]\nranking: [a]\nsettings: {}\nweight: 1\n",
    ],
)
def test_what_is_no_tuned_file_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tuned.yaml"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"tuned\.yaml: is no file of fusion\.tune: "):
        read_tuned(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "rovr"}, "method is 'rovr', must be one of: member, "),
        ({"members": ("a", "a")}, "members has 'a' 2 times, must have it once"),
        ({"ranking": ("a", "b", "b")}, "ranking has 'b' 2 times, must have it once"),
    ],
)
def test_what_an_editor_broke_is_named(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    """Members were asked twice, nobody was asked, or a traceback came."""
    path = tmp_path / "tuned.yaml"
    tuned = Tuned(method="mbr", members=("a",), ranking=("a", "b"), settings={})
    write_tuned(path, tuned)
    assert read_tuned(path) == tuned
    write_tuned(path, msgspec.structs.replace(tuned, **changed))
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        read_tuned(path)


@pytest.mark.parametrize(
    ("members", "settings", "message"),
    [
        (("a",), {"weigths": [1.0]}, "settings of mbr: "),
        ((), {}, "members is empty, must name at least one"),
    ],
)
def test_what_cannot_be_applied_is_named_with_its_file(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    members: tuple[str, ...],
    settings: dict[str, Any],
    message: str,
) -> None:
    path = tmp_path / "tuned.yaml"
    write_tuned(path, Tuned(method="mbr", members=members, ranking=("a",), settings=settings))
    (tmp_path / "a.jsonl").touch()
    out = tmp_path / "out.jsonl"
    assert main([str(path), "--hyp", str(tmp_path), "--out", str(out)]) == 1
    assert f"{path}: {message}" in capsys.readouterr().err
    assert not out.exists()


def test_settings_beside_it_that_nest_too_deep_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tuned.yaml"
    settings = {"weights": [1.0] * 2000}
    tuned = Tuned(method="mbr", members=("a",), ranking=("a",), settings=settings)
    write_tuned(path, tuned)
    assert read_tuned(path) == tuned
    model_path(path).write_bytes(b"[" * 100_000)
    with pytest.raises(ValueError, match=r"tuned\.model\.json: is no JSON object: "):
        read_tuned(path)
