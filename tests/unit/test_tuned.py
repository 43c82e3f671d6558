"""A tuned file that somebody has edited, or that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_settings_beside_it_that_nest_too_deep_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tuned.yaml"
    settings = {"weights": [1.0] * 2000}
    tuned = Tuned(method="mbr", members=("a",), ranking=("a",), settings=settings)
    write_tuned(path, tuned)
    assert read_tuned(path) == tuned
    model_path(path).write_bytes(b"[" * 100_000)
    with pytest.raises(ValueError, match=r"tuned\.model\.json: is no JSON object: "):
        read_tuned(path)
