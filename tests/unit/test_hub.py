"""Model folders: weights that are there, and whole."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from manifests.hub import model_folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "adapter_model.safetensors"
    tensors = {"a": np.ones((3, 5), np.float32), "b": np.zeros(7, np.float16)}
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def test_whole_weights_are_a_model(weights: Path) -> None:
    assert model_folder(str(weights.parent)) == weights.parent


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_torn_weights_are_named(weights: Path, kept: int) -> None:
    """As a copy leaves them that was broken off; the toolkits end in a traceback."""
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"^{re.escape(str(weights))}: .*must be "):
        model_folder(weights.parent)


def test_weights_may_hold_nothing(weights: Path) -> None:
    save_file({}, weights)
    assert model_folder(weights.parent) == weights.parent


@pytest.mark.parametrize("header", [b"[1]", b'{"a": 1}', b'{"a": {"data_offsets": []}}', b"\xff"])
def test_a_header_of_something_else_is_no_traceback(weights: Path, header: bytes) -> None:
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match="has no whole header, must be a safetensors file"):
        model_folder(weights.parent)
