"""OWSM checkpoints: every way to name one, strictly loaded, and loadable by plain ESPnet."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from recipes.tiny_owsm import build
from systems.owsm.checkpoint import load_owsm
from systems.owsm.layout import find_layout

HUB_ID = "espnet/owsm_v4_tiny"


def weights_of(checkpoint: str | Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_owsm(checkpoint).model.state_dict()
    return weights


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[k].float(), right[k].float()) for k in left
    )


def zipped(folder: Path, out: Path) -> Path:
    return Path(shutil.make_archive(str(out), "zip", folder))


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "exp" / "owsm" / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(config | changes), encoding="utf-8")


@pytest.fixture
def moved(tiny_owsm: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoiled."""
    return Path(shutil.copytree(tiny_owsm, tmp_path / "moved"))


def test_folder_zip_and_hub_id_are_one_model(
    tiny_owsm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = torch.load(tiny_owsm / "exp" / "owsm" / "model.pth", weights_only=True)
    before = {path: path.stat().st_mtime_ns for path in tiny_owsm.rglob("*")}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)  # paths inside are relative to the root, not to where we are
    assert same(weights_of(tiny_owsm), expected)
    assert same(weights_of(zipped(tiny_owsm, tmp_path / "packed")), expected)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--espnet--owsm_v4_tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    shutil.copytree(tiny_owsm, repository / "snapshots" / "abc")
    code = (
        "import sys; from systems.owsm.checkpoint import load_owsm;"
        "print(load_owsm(sys.argv[1]).layout.root)"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    found = subprocess.run(
        [sys.executable, "-c", code, HUB_ID],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()) == repository / "snapshots" / "abc"
    assert found.stderr == ""
    assert {path: path.stat().st_mtime_ns for path in tiny_owsm.rglob("*")} == before


def test_a_missing_model_says_what_to_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"hf download espnet/owsm_v4_none"):
        find_layout("espnet/owsm_v4_none")
    with pytest.raises(ValueError, match="no such folder"):
        find_layout("no/such/folder")


def test_a_folder_that_espnet_rewrote_can_still_be_moved(moved: Path) -> None:
    rewrite(
        moved,
        bpemodel="/gone/data/token_list/bpe/bpe.model",
        normalize_conf={"stats_file": "/gone/exp/stats/feats_stats.npz"},
    )
    config = find_layout(moved).config
    assert config["bpemodel"] == str(moved / "data" / "token_list" / "bpe" / "bpe.model")
    assert Path(config["normalize_conf"]["stats_file"]).is_file()


@pytest.mark.parametrize("spoil", ["prefix", "half", "size", "torn"])
def test_weights_that_are_not_the_models_are_refused(moved: Path, spoil: str) -> None:
    path = moved / "exp" / "owsm" / "model.pth"
    weights = torch.load(path, weights_only=True)
    if spoil == "prefix":
        weights = {f"base_model.model.{name}": weight for name, weight in weights.items()}
    elif spoil == "half":
        weights = {name: weight for name, weight in weights.items() if "encoder" in name}
    elif spoil == "size":
        weights["ctc.ctc_lo.bias"] = weights["ctc.ctc_lo.bias"][:-1]
    if spoil == "torn":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        torch.save(weights, path)
    with pytest.raises(ValueError, match=r"model\.pth"):
        load_owsm(moved)


def test_another_sampling_rate_is_refused(moved: Path) -> None:
    conf = find_layout(moved).config["preprocessor_conf"]
    rewrite(moved, preprocessor_conf={**conf, "fs": 8000})
    with pytest.raises(ValueError, match="fs is 8000, must be 16000"):
        load_owsm(moved)


def test_what_is_missing_is_named(moved: Path) -> None:
    (moved / "data" / "token_list" / "bpe" / "bpe.model").unlink()
    with pytest.raises(ValueError, match=r"bpe\.model"):
        find_layout(moved)
    (moved / "meta.yaml").unlink()
    with pytest.raises(ValueError, match=r"no meta\.yaml"):
        find_layout(moved)


def test_plain_espnet_loads_what_training_wrote(trained_owsm: Path, tmp_path: Path) -> None:
    load_owsm(trained_owsm)  # so that what follows is imported without noise
    from espnet2.bin.s2t_inference import Speech2Text
    from espnet_model_zoo.downloader import ModelDownloader

    archive = zipped(trained_owsm, tmp_path / "final")
    files = ModelDownloader(cachedir=tmp_path / "zoo").download_and_unpack(str(archive))
    recogniser = Speech2Text(**files)
    assert same(dict(recogniser.s2t_model.state_dict()), weights_of(trained_owsm))


def test_importing_espnet_is_silent_and_offline(tmp_path: Path) -> None:
    code = """
import socket
def refuse(*args, **kwargs): raise SystemExit("the import touched the network")
socket.getaddrinfo = socket.socket.connect = refuse
from systems.owsm.toolkit import task_class
task_class("aed"), task_class("ctc")
import sys
assert "g2p_en" not in sys.modules and "flash_attn" not in sys.modules
import typeguard
assert typeguard.typechecked.__module__.startswith("typeguard")
"""
    root = str(Path(__file__).parents[2])
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_espnet_does_not_read_our_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["tiny_owsm", "--dec", "1", "--out", "elsewhere"])
    folder = build(["a b"] * 9, tmp_path / "model", window=1, width=16, blocks=1, pieces=5)
    assert find_layout(folder).config["output_dir"] is None
    assert sys.argv[1] == "--dec"
