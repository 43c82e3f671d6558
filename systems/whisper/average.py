"""The mean of several Whisper models, or of several adapters of one base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.hub import model_folder
from manifests.jsonl import write_json
from systems.averaging import Mean
from systems.record import Record, read_record, write_record
from systems.whisper.checkpoint import base_of, home_of, load_model, save_processor
from systems.whisper.window import window_of

if TYPE_CHECKING:
    from torch import Tensor

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_A, _B = ".lora_A.weight", ".lora_B.weight"


def average(
    checkpoints: Sequence[str | Path], folder: Path, base: str | Path | None = None
) -> None:
    """Write the mean of some models to ``folder``, as training would have written it.

    Of adapters, one adapter; see `mean_adapter`. ``base`` is where their base is, when it has
    moved. ValueError when the checkpoints are not of one kind, base, shape or vocabulary.
    """
    folders = [model_folder(checkpoint) for checkpoint in checkpoints]
    adapted = [(one / _CONFIG).exists() for one in folders]
    if not any(adapted):
        _average_models(folders, folder)
    elif all(adapted):
        _average_adapters(folders, folder, base)
    else:
        whole = folders[adapted.index(False)]
        raise ValueError(
            f"{whole}: is a whole model and others are adapters, must all be of one kind "
            "(systems.whisper.merge makes a whole model of an adapter)"
        )


def _average_models(folders: Sequence[Path], out: Path) -> None:
    mean = Mean()
    model, processor = load_model(folders[0])
    vocabulary, window = processor.tokenizer.get_vocab(), window_of(model)
    mean.add(model.state_dict(), str(folders[0]))
    for folder in folders[1:]:
        other, others = load_model(folder)
        if others.tokenizer.get_vocab() != vocabulary:
            raise ValueError(f"{folder}: its vocabulary is not that of {folders[0]}")
        _same_window(folder, window_of(other), folders[0], window)
        mean.add(other.state_dict(), str(folder))
    model.load_state_dict(mean.result())
    model._keys_to_ignore_on_save = {"proj_out.weight"}  # tied; transformers warns of it
    model.save_pretrained(out)
    model.generation_config.save_pretrained(out)
    save_processor(processor, out)
    home = home_of(folders[0])
    record = read_record(home)
    if record is not None:
        write_record(out, "whisper", str(base_of(home, record)), record.config, out, window)


def _average_adapters(folders: Sequence[Path], out: Path, base: str | Path | None) -> None:
    from safetensors.torch import load_file, save_file

    homes = [home_of(folder) for folder in folders]
    records = [read_record(home) for home in homes]
    bases = [str(base or base_of(*pair)) for pair in zip(homes, records, strict=True)]
    configs = []
    for folder, record, own_base in zip(folders, records, bases, strict=True):
        if _place(own_base) != _place(bases[0]):
            raise ValueError(
                f"{folder}: is an adapter of {own_base}, must be one of {bases[0]} as {folders[0]}"
            )
        _same_window(folder, _window(record), folders[0], _window(records[0]))
        configs.append(_plain_lora(folder))
    weights = [(load_file(folder / _WEIGHTS), str(folder)) for folder in folders]
    mean = mean_adapter([(of_one, place, scale) for (of_one, place), (_, scale)
                         in zip(weights, configs, strict=True)])  # fmt: skip
    rank = max(weight.shape[0] for name, weight in mean.items() if name.endswith(_A))
    for path in homes[0].iterdir():
        if path.is_file() and path.name not in (_CONFIG, _WEIGHTS):
            shutil.copyfile(path, out / path.name)
    save_file(mean, out / _WEIGHTS, metadata={"format": "pt"})
    changed = {
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "base_model_name_or_path": bases[0],
    }
    write_json(out / _CONFIG, configs[0][0] | changed, indent=2)
    record = records[0]
    if record is not None:
        write_record(out, "whisper", bases[0], record.config, out, record.window)


def mean_adapter(
    adapters: Sequence[tuple[Mapping[str, Tensor], str, float]],
) -> dict[str, Tensor]:
    """Return one LoRA adapter that adds the mean of what several add; its own scale is 1.

    Each is weights, place and scale. What an adapter adds is ``scale * B @ A``; the mean of the
    factors would have cross terms (0.85 of relative error in a measurement), but the factors
    side by side, B's divided by their number, give the mean exactly. The rank is the sum of the
    ranks, and costs nothing once the adapter is merged. ValueError when they differ in what
    they adapt.
    """
    import torch

    first, first_place, _ = adapters[0]
    names = sorted(name.removesuffix(_A) for name in first if name.endswith(_A))
    for weights, place, _ in adapters:
        unlike = sorted(weights.keys() ^ first.keys())
        sizes = [
            name
            for name in first.keys() & weights.keys()
            if _outside(name, weights[name]) != _outside(name, first[name])
        ]
        if unlike or sizes:
            shown = ", ".join((unlike or sorted(sizes))[:3])
            raise ValueError(
                f"{place}: adapts other weights or sizes ({shown}), must be those of {first_place}"
            )
    if {*(name + _A for name in names), *(name + _B for name in names)} != first.keys():
        raise ValueError(f"{first_place}: holds more than LoRA's factors, must be plain LoRA")
    count = len(adapters)
    found = {}
    for name in names:
        right = [weights[name + _A].float() for weights, _, _ in adapters]
        left = [weights[name + _B].float() * (scale / count) for weights, _, scale in adapters]
        found[name + _A] = torch.cat(right, dim=0).contiguous()
        found[name + _B] = torch.cat(left, dim=1).contiguous()
    return found


def _outside(name: str, weight: Tensor) -> int:
    """Return the size of a factor that is not the rank."""
    return int(weight.shape[1] if name.endswith(_A) else weight.shape[0])


def _plain_lora(folder: Path) -> tuple[dict[str, Any], float]:
    """Return an adapter's settings and its scale; ValueError when it is not plain LoRA."""
    path = folder / _CONFIG
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{path}: peft_type is {config.get('peft_type')!r}, must be 'LORA'")
    for key in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.get(key):
            raise ValueError(f"{path}: {key} is {config[key]!r}, must not be set to be averaged")
    if config.get("bias", "none") != "none":
        raise ValueError(f"{path}: bias is {config['bias']!r}, must be 'none' to be averaged")
    rank = int(config["r"])
    return config, float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)


def _place(base: str) -> str:
    path = Path(base).expanduser()
    return str(path.resolve()) if path.exists() else base


def _window(record: Record | None) -> float | None:
    return record.window if record else None


def _same_window(folder: Path, window: float | None, first: Path, wanted: float | None) -> None:
    if window != wanted:
        raise ValueError(f"{folder}: window is {window} s, must be {wanted} as in {first}")
