"""Load any NeMo CTC, transducer or hybrid model: a hub id, a name, a `.nemo` file, a folder."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from systems.experiment import FINAL
from systems.nemo.quiet import import_nemo
from systems.record import RECORD, Record, base_now, read_record

MODEL = "model.nemo"
ADAPTER = "adapter.pt"
ADAPTER_NAME = "kids"  # "children" is a method of every torch module

_HUB_ID = re.compile(r"(?:([\w.-]+)/)?([\w.-]+)")
_DEFAULT_OWNER = "nvidia"


class ModelClasses(NamedTuple):
    """The classes that we know how to train and decode; a hybrid is a transducer, too."""

    ctc: Any
    transducer: Any
    hybrid: Any


def model_classes() -> ModelClasses:
    """Return NeMo's model classes; imports NeMo."""
    models = import_nemo().models
    return ModelClasses(
        models.EncDecCTCModelBPE, models.EncDecRNNTBPEModel, models.EncDecHybridRNNTCTCBPEModel
    )


def has_ctc(model: Any) -> bool:
    """Return whether a model has a CTC head."""
    return isinstance(model, import_nemo().models.EncDecCTCModel) or hasattr(model, "ctc_decoder")


def has_transducer(model: Any) -> bool:
    """Return whether a model has a transducer head."""
    return hasattr(model, "joint")


def nemo_file(checkpoint: str | Path) -> Path:
    """Return the `.nemo` file of a checkpoint: itself, in its folder, or of a hub id.

    A file in the Hugging Face cache is used without asking the network; otherwise it is
    downloaded. ValueError says what to download and where to put it.
    """
    path = Path(checkpoint).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        found = sorted(path.glob("*.nemo"))
        if len(found) != 1:
            raise ValueError(f"{path}: holds {len(found)} .nemo files, must be one")
        return found[0]
    match = _HUB_ID.fullmatch(str(checkpoint))
    if isinstance(checkpoint, Path) or match is None or path.suffix == ".nemo":
        raise ValueError(
            f"{checkpoint}: no such file or folder, must be a .nemo file, a folder that holds one, "
            "or a hub id"
        )
    return _from_hub(match[1] or _DEFAULT_OWNER, match[2])


def _from_hub(owner: str, name: str) -> Path:
    import httpx
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    hub_id, file = f"{owner}/{name}", f"{name}.nemo"
    cached = try_to_load_from_cache(hub_id, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hf_hub_download(hub_id, file))
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as e:
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
    except Exception as e:  # hub 2 also raises errors of httpx2, which need not be installed
        reason = f"{type(e).__name__}: {e}"
    raise ValueError(
        f"{hub_id}: neither a file nor in the local cache {HF_HUB_CACHE}, and the download failed "
        f"({reason}); on a machine with a network run `hf download {hub_id} {file} --local-dir .`, "
        "copy that file here and give its path instead"
    )


def load_model(checkpoint: str | Path, *, adapters: bool = False, base: str | None = None) -> Any:
    """Return a model in eval mode on the CPU, in float32.

    With ``adapters`` its encoder can take them. A folder that holds a trained adapter alone loads
    that on its base, which ``base`` overrides. A training's ``checkpoints/*.ckpt`` takes what it
    lacks from ``final``. ValueError says what is wrong.
    """
    path = Path(checkpoint).expanduser()
    if path.suffix == ".ckpt" and path.is_file():
        return _of_training(path, base)
    if path.is_dir() and not (path / MODEL).exists() and (path / ADAPTER).exists():
        return load_adapter(base, path / ADAPTER, _record(path))
    return _restore(nemo_file(checkpoint), adapters)


def load_adapter(base: str | Path | None, adapter: Path, record: Record) -> Any:
    """Return the base with a trained adapter in it; ValueError when the two do not fit."""
    import torch

    from systems.nemo.config import NemoConfig

    config = msgspec.convert(record.config, NemoConfig)
    model = load_model(base or base_now(adapter.parent, record), adapters=True)
    add_adapter(model, config.train.adapter)
    # NeMo's own load_adapters fails on torch's weights_only: its file holds a config.
    weights = torch.load(adapter, map_location="cpu", weights_only=True)
    load_strictly(model, weights, adapter)
    return model.eval()


def _of_training(path: Path, base: str | None) -> Any:
    """Return the model of an intermediate checkpoint, which holds what is trained alone."""
    import torch

    final = home_of(path)
    if not final.is_dir():
        raise ValueError(f"{path}: no {final}, must be there: it holds the rest of the model")
    model = load_model(final, base=base)
    # Lightning's own objects lie beside the weights.
    weights = torch.load(path, map_location="cpu", weights_only=False)["state_dict"]
    load_strictly(model, {name.removeprefix("model."): w for name, w in weights.items()}, path)
    return model.eval()


def home_of(checkpoint: Path) -> Path:
    """Return the folder that holds a checkpoint's record: of a training's, its ``final``."""
    return (
        checkpoint.resolve().parent.parent / FINAL if checkpoint.suffix == ".ckpt" else checkpoint
    )


def load_strictly(model: Any, weights: dict[str, Any], place: Path) -> None:
    """Put every one of ``weights`` into ``model``, or raise ValueError: none may get lost."""
    known = model.state_dict()
    bad = [k for k, v in weights.items() if k not in known or known[k].shape != v.shape]
    if bad or not weights:
        raise ValueError(
            f"{place}: {len(bad)} of {len(weights)} weights do not fit the model "
            f"({', '.join(bad[:3])}), must be all of an adapter of this base"
        )
    model.load_state_dict(weights, strict=False)


def add_adapter(model: Any, settings: Any) -> None:
    """Put a new adapter, which changes nothing yet, behind each encoder layer."""
    from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig

    model.add_adapter(
        f"encoder:{ADAPTER_NAME}",
        cfg=LinearAdapterConfig(
            in_features=model.cfg.encoder.d_model,
            dim=settings.dim,
            activation=settings.activation,
            norm_position="pre",
            dropout=settings.dropout,
        ),
    )
    model.set_enabled_adapters(enabled=False)
    model.set_enabled_adapters(f"encoder:{ADAPTER_NAME}", enabled=True)


def adapter_weights(model: Any) -> dict[str, Any]:
    """Return the weights of our adapter by their names in the model; none without one."""
    mark = f"adapter_layer.{ADAPTER_NAME}."
    return {name: weight for name, weight in model.state_dict().items() if mark in name}


def _restore(file: Path, adapters: bool) -> Any:
    asr = import_nemo()
    try:
        override = None
        if adapters:
            override = asr.models.ASRModel.restore_from(str(file), return_config=True)
            override.encoder._target_ = _adapter_class(override.encoder._target_, file)
        model = asr.models.ASRModel.restore_from(
            str(file), map_location="cpu", override_config_path=override
        )
    except (tarfile.TarError, EOFError, KeyError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{file}: not a whole .nemo archive: {reason}") from None
    if not (has_ctc(model) or has_transducer(model)) or not hasattr(model, "tokenizer"):
        raise ValueError(
            f"{file}: is a {type(model).__name__}, must be a CTC, transducer or hybrid model "
            "with a SentencePiece vocabulary"
        )
    return model.eval()  # restored models are in training mode


def _adapter_class(target: str, file: Path) -> str:
    from nemo.core.classes.mixins.adapter_mixins import get_registered_adapter

    module, _, name = target.rpartition(".")
    if name.endswith("Adapter"):
        return target
    cls = getattr(__import__(module, fromlist=[name]), name)
    found = get_registered_adapter(cls)
    if found is None:
        raise ValueError(f"{file}: its encoder {name} takes no adapters; train.adapt must be full")
    return str(found.adapter_class_path)


def _record(folder: Path) -> Record:
    record = read_record(folder)
    if record is None:
        raise ValueError(f"{folder}: holds {ADAPTER} without {RECORD}, must hold both")
    return record
