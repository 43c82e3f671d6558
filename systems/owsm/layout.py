"""Where the files of an OWSM checkpoint are: ESPnet's layout as a folder, a zip or a hub id.

A packed ESPnet model is a root with ``meta.yaml``, which names the configuration and the weights;
the configuration in turn names the SentencePiece model and the feature statistics, relative to
the root. ESPnet's own downloader writes absolute paths into the configuration, after which the
folder can never be moved. Here nothing is rewritten: paths are made absolute in memory, and those
that were rewritten before are found again by their ends.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from manifests.hub import hub_folder

META = "meta.yaml"
_NAME = "exp/owsm"
_WEIGHTS = ("s2t_model_file", "model_file")
_CONFIGS = ("s2t_train_config", "train_config")


@dataclass(frozen=True)
class Layout:
    """The files of one checkpoint and its configuration, all paths absolute."""

    root: Path
    config_file: Path
    weights: Path
    config: dict[str, Any]  # ESPnet's training arguments


def find_layout(checkpoint: str | Path) -> Layout:
    """Return the files of a checkpoint: a folder, a zip of one, or a hub id.

    ValueError says what is missing and where to put it.
    """
    root = _root(checkpoint)
    meta = _read_yaml(root / META)
    config_file = root / _named(meta, "yaml_files", _CONFIGS, root)
    weights = root / _named(meta, "files", _WEIGHTS, root)
    for path in (config_file, weights):
        if not path.is_file():
            raise ValueError(f"{root / META}: names {path}, which does not exist")
    config = _read_yaml(config_file)
    if not isinstance(config.get("token_list"), list):
        raise ValueError(f"{config_file}: token_list is no list, must be an S2T configuration")
    for holder, key in _paths(config):
        holder[key] = str(_locate(root, holder[key], config_file))
    return Layout(root, config_file, weights, config)


def _root(checkpoint: str | Path) -> Path:
    path = Path(checkpoint).expanduser()
    if path.is_file() and zipfile.is_zipfile(path):
        path = _unzipped(path)
    elif not path.is_dir():
        if path.exists() or isinstance(checkpoint, Path):
            raise ValueError(f"{path}: neither a folder nor a zip, must be an ESPnet model")
        path = hub_folder(checkpoint, None, lambda folder: (folder / META).is_file())
    if not (path / META).is_file():
        raise ValueError(f"{path}: no {META}, must be the root of a packed ESPnet model")
    return path


def _unzipped(archive: Path) -> Path:
    """Return a folder with the content of ``archive``; unpacked once, in the user's cache."""
    status = archive.stat()
    key = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "childrens-asr"
    folder = cache / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.{os.getpid()}")
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(part)  # it leaves out what would lie outside of the folder
        try:
            part.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(part)
    return folder


def _named(meta: dict[str, Any], section: str, keys: tuple[str, ...], root: Path) -> str:
    for key in keys:
        named = (meta.get(section) or {}).get(key)
        if named:
            return str(named)
    raise ValueError(f"{root / META}: {section} holds no {keys[0]}, must be an S2T model")


def _paths(config: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Return where the configuration holds names of files."""
    found = [(config, "bpemodel"), (config.get("normalize_conf") or {}, "stats_file")]
    return [(holder, key) for holder, key in found if holder.get(key)]


def _locate(root: Path, name: str, place: Path) -> Path:
    """Return the file that a configuration names, wherever its root was at the time."""
    parts = PurePosixPath(name).parts
    for first in range(len(parts)):
        path = root.joinpath(*parts[first:]) if parts[first] != "/" else Path(name)
        if path.is_file() and (parts[first] != "/" or path.is_relative_to(root)):
            return path.resolve()
    raise ValueError(f"{place}: names {name}, which is not below {root}")


def _read_yaml(path: Path) -> dict[str, Any]:
    # libyaml reads the 50,000 tokens of a published model in a third of the time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: is a {type(values).__name__}, must be a mapping")
    return values


def write_layout(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Any], root: Path
) -> None:
    """Write a packed ESPnet model; ``config`` names files below ``root``, which are copied.

    The configuration is written with relative paths, so that the folder can be moved and zipped.
    """
    import platform

    import torch

    own: dict[str, Any] = {**config, "normalize_conf": {**(config.get("normalize_conf") or {})}}
    for holder, key in _paths(own):
        source = Path(holder[key])
        relative = source.resolve().relative_to(root.resolve())
        target = folder / relative
        if target.resolve() != source.resolve():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        holder[key] = relative.as_posix()
    (folder / _NAME).mkdir(parents=True, exist_ok=True)
    _write_yaml(folder / _NAME / "config.yaml", own)
    torch.save(dict(weights), folder / _NAME / "model.pth")
    meta = {
        "espnet": "202511",
        "files": {_WEIGHTS[0]: f"{_NAME}/model.pth"},
        "yaml_files": {_CONFIGS[0]: f"{_NAME}/config.yaml"},
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a TorchVersion is no plain YAML
    }
    _write_yaml(folder / META, meta)


def _write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(_plain(dict(values)), Dumper=dumper, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return ``value`` with lists for tuples, which plain YAML does not know."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
