"""Load any Whisper: a hub id, a model folder, or what we trained (an adapter names its base)."""

from __future__ import annotations

import importlib.resources
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from manifests.device import Device, Precision
from manifests.hub import model_folder
from manifests.jsonl import write_atomic
from manifests.rows import Seconds
from systems.experiment import FINAL
from systems.record import Record, base_now, read_record
from systems.whisper.generation import generation_config
from systems.whisper.window import shorten

if TYPE_CHECKING:
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

Attention = Literal["sdpa", "eager"]


def load_model(
    checkpoint: str | Path,
    *,
    window: Seconds | None = None,
    device: Device = "cpu",
    precision: Precision = "fp32",
    attn: Attention = "sdpa",
    base: str | Path | None = None,
) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """Return the model in eval mode, a trained adapter merged into its base, and its processor.

    A training's ``checkpoints/checkpoint-N`` takes what it lacks from ``final``. ``window`` cuts
    the encoder (None: as trained, else as pretrained); ``base`` overrides where an adapter's base
    is. ValueError says what is missing and where to put it.
    """
    from transformers import WhisperForConditionalGeneration, WhisperProcessor
    from transformers.utils.logging import disable_progress_bar

    if not sys.stderr.isatty():
        disable_progress_bar()
    folder = model_folder(checkpoint)
    home = home_of(folder)
    record = read_record(home)
    dtype = torch_dtype(precision)
    if (folder / "adapter_config.json").exists():
        model = _merged(folder, base or base_of(home, record), dtype, attn)
    else:
        _check_is_whisper(folder)
        model = WhisperForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, attn_implementation=attn, local_files_only=True
        )
    processor = WhisperProcessor.from_pretrained(home, local_files_only=True)
    model.generation_config = generation_config(home, model.config, processor.tokenizer)
    if window is None and record is not None:
        window = record.window
    shorten(model, processor, window)
    return model.to(device).eval(), processor


def torch_dtype(precision: Precision) -> torch.dtype:
    """Return torch's name of a precision."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def home_of(folder: Path) -> Path:
    """Return the folder that holds a checkpoint's tokeniser and record.

    Its own; of a training's intermediate checkpoint, which is weights alone, the training's
    ``final``.
    """
    final = folder.resolve().parent.parent / FINAL
    bare = not (folder / "tokenizer_config.json").exists()
    return final if bare and folder.name.startswith("checkpoint-") and final.is_dir() else folder


def _merged(
    folder: Path, base: str | Path, dtype: torch.dtype, attn: Attention
) -> WhisperForConditionalGeneration:
    """Return the base with the adapter added to its weights, in float32 before any rounding."""
    from peft import PeftModel

    model, processor = load_model(base, attn=attn)
    shorten(model, processor, None)
    try:
        with quiet_peft():
            adapted = PeftModel.from_pretrained(model, folder)
    except RuntimeError as error:
        raise ValueError(
            f"{folder}: the adapter does not fit its base: {str(error).splitlines()[0]}"
        ) from None
    return adapted.merge_and_unload().to(dtype)


def base_of(folder: Path, record: Record | None) -> str | Path:
    """Return where the base of the adapter in ``folder`` is now."""
    if record is not None:
        return base_now(folder, record)
    named = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return str(named["base_model_name_or_path"])


def _check_is_whisper(folder: Path) -> None:
    path = folder / "config.json"
    if not path.exists():
        raise ValueError(f"{folder}: no config.json, must be a Hugging Face Whisper folder")
    kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    if kind != "whisper":
        raise ValueError(f"{path}: model_type is {kind!r}, must be 'whisper'")


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Leave out the warning that peft asks transformers by a name that version 5 changed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def save_processor(processor: WhisperProcessor, folder: Path) -> None:
    """Write tokenizer and feature extractor, with the files that transformers 5 leaves out."""
    processor.save_pretrained(folder)
    # faster-whisper and CTranslate2 read only this one.
    processor.feature_extractor.save_pretrained(folder)
    spelling = importlib.resources.files("whisper_normalizer") / "normalizers" / "english.json"
    write_atomic(folder / "normalizer.json", spelling.read_text(encoding="utf-8"))
