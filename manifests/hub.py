"""From a Hugging Face hub id or a folder to a folder: one code path for both, offline too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Repositories also carry the weights for other frameworks and in other precisions.
_SMALL_FILES = ["*.json", "*.txt"]
_SAFETENSORS = ["model.safetensors", "model-*-of-*.safetensors", "adapter_model.safetensors"]
_PICKLES = ["pytorch_model.bin", "pytorch_model-*-of-*.bin"]


def has_weights(folder: Path) -> bool:
    """Return whether ``folder`` holds a model's or an adapter's weights, as a whole."""
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).exists():
            return any(folder.glob(f"{index.split('.')[0]}-*-of-*"))
    names = (*_SAFETENSORS, *_PICKLES)
    return any((folder / name).exists() for name in names if "*" not in name)


def model_folder(checkpoint: str | Path) -> Path:
    """Return the folder of a checkpoint: itself, or the local copy of a hub id.

    A copy in the Hugging Face cache is used without asking the network; otherwise it is
    downloaded. ValueError says what to download and where to put it, or which file is torn.
    """
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        if not has_weights(folder):
            raise ValueError(
                f"{folder}: no model.safetensors, adapter_model.safetensors or pytorch_model.bin, "
                "must be a Hugging Face model folder"
            )
        for path in sorted(folder.glob("*.safetensors")):
            _refuse_torn(path)
        return folder
    folder = hub_folder(checkpoint, (*_SMALL_FILES, *_SAFETENSORS), _is_whole)
    return folder if has_weights(folder) else _download(str(checkpoint), (*_SMALL_FILES, *_PICKLES))


def _refuse_torn(path: Path) -> None:
    """Raise ValueError when a safetensors file is not as long as its header says.

    It begins with the header's size (8 bytes, little endian) and the header, which is JSON and
    says of each tensor where it begins and ends behind the header.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(min(int.from_bytes(file.read(8), "little"), size))
        start = file.tell()
    try:
        tensors: dict[str, dict[str, Any]] = json.loads(header)
        tensors.pop("__metadata__", None)
        wanted = start + max((one["data_offsets"][1] for one in tensors.values()), default=0)
    except (ValueError, AttributeError, LookupError, TypeError):
        raise ValueError(f"{path}: has no whole header, must be a safetensors file") from None
    if size != wanted:
        raise ValueError(f"{path}: {size} bytes, must be {wanted} as its header says")


def hub_folder(
    checkpoint: str | Path, patterns: Sequence[str] | None, is_whole: Callable[[Path], bool]
) -> Path:
    """Return the local copy of a hub id: the cached one if it ``is_whole``, else downloaded.

    ``patterns`` choose the files (None: all). ValueError says what to download and where to
    put it, or that ``checkpoint`` is no hub id.
    """
    if isinstance(checkpoint, Path) or not _HUB_ID.fullmatch(checkpoint):
        raise ValueError(f"{checkpoint}: no such folder, must be a model folder or a hub id")
    cached = _from_cache(checkpoint, patterns)
    if cached is not None and is_whole(cached):
        return cached
    return _download(checkpoint, patterns)


def _is_whole(folder: Path) -> bool:
    return has_weights(folder) and (folder / "config.json").exists()


def _from_cache(hub_id: str, patterns: Sequence[str] | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                hub_id, local_files_only=True, allow_patterns=list(patterns) if patterns else None
            )
        )
    except LocalEntryNotFoundError:
        return None


def _download(hub_id: str, patterns: Sequence[str] | None) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        folder = Path(
            snapshot_download(hub_id, allow_patterns=list(patterns) if patterns else None)
        )
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as e:
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise ValueError(
            f"{hub_id}: neither a folder nor in the local cache {HF_HUB_CACHE}, and the download "
            f"failed ({reason}); on a machine with a network run `hf download {hub_id} "
            f"--local-dir {hub_id.split('/')[1]}`, copy that folder here and give its path instead"
        ) from None
    return folder
