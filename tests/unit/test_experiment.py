"""The folder of a training run: results of two settings never mix in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from systems.experiment import is_complete, write_settings

OLD, NEW = {"pretrained": "/nowhere"}, {"pretrained": "/there"}


def test_what_failed_before_its_first_checkpoint_refuses_no_other_settings(tmp_path: Path) -> None:
    write_settings(tmp_path, OLD)
    assert not is_complete(tmp_path, NEW)


@pytest.mark.parametrize("result", ["checkpoints/checkpoint-3", "checkpoints/last.ckpt", "final"])
def test_what_has_a_result_refuses_other_settings(tmp_path: Path, result: str) -> None:
    write_settings(tmp_path, OLD)
    (tmp_path / result).mkdir(parents=True)
    assert is_complete(tmp_path, OLD) == (result == "final")
    with pytest.raises(ValueError, match="pretrained was '/nowhere', is '/there'"):
        is_complete(tmp_path, NEW)
