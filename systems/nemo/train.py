"""Fine-tune a NeMo model: adapter, frozen encoder or all of it, resumable, to ``exp/final``.

Lightning trains; the batches are ours. NeMo's own loaders were seen to hang on a missing file,
to drop damaged ones in silence and to ignore augmentation that they do not know.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.utils.data import DataLoader, Subset

from manifests.device import pick_device, pick_precision
from manifests.jsonl import read_rows, write_json
from manifests.rows import Utterance
from manifests.text import normalize_text
from systems.examples import counted, train_and_dev
from systems.experiment import FINAL, is_complete, publish, settings_of, write_settings
from systems.nemo.checkpoint import (
    ADAPTER,
    MODEL,
    adapter_weights,
    add_adapter,
    has_transducer,
    load_model,
)
from systems.nemo.config import NemoConfig, TrainConfig
from systems.nemo.data import DurationBatches, Examples, collate
from systems.nemo.decoder import ctc_decoder, frame_seconds, log_probs
from systems.nemo.quiet import import_nemo
from systems.nemo.tdt_loss import right_loss
from systems.nemo.tokenizer import train_tokenizer
from systems.nemo.transducer import TransducerDecoder
from systems.record import write_record


def train(config: NemoConfig, train: Path, dev: Path, exp: Path) -> Path:
    """Fine-tune ``config.pretrained`` on one manifest, choose by another, return ``exp/final``.

    Resumes at the last checkpoint after a kill; does nothing when ``final`` is there already.
    ValueError when ``exp`` was begun with other settings or other data. Under torchrun every
    process calls this; the first alone writes.
    """
    final, settings = exp / FINAL, settings_of(config, train, dev)
    if is_complete(exp, settings):
        return final
    _check(config)
    device = pick_device(config.device)
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if rank == 0:
        write_settings(exp, settings)
    import_nemo()
    from systems.nemo.fit import fit

    with tempfile.TemporaryDirectory() as tokenizer:
        torch.manual_seed(config.train.seed)
        model = load_model(config.pretrained, adapters=config.train.adapt == "adapter")
        _prepare(model, config, train, Path(tokenizer))
        model.to(device)
        right_loss(model)
        common = (config.window, model.tokenizer, frame_seconds(model), config.text)
        train_set, dev_set = train_and_dev(
            lambda manifest, **how: Examples(manifest, *common, **how), train, dev, config.train
        )
        trained = fit(
            model,
            config.train,
            exp,
            device=device,
            precision=pick_precision(config.train.precision, device),
            batches=_train_loader(config.train, train_set, rank, processes),
            dev=dev_loader(config.train, dev_set, rank, processes),
            hear=_hear(model, config),
        )
        if rank == 0:
            metrics = {
                **trained,
                **_sizes(model),
                "processes": processes,
                **counted(train_set, dev_set),
                "device": device,
            }
            write_json(exp / "metrics.json", metrics)
            publish(final, lambda folder: save(model, config, folder, final))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return final


def save(model: Any, config: NemoConfig, folder: Path, final: Path) -> None:
    """Write the whole model, its adapter alone where there is one, and what it is of."""
    model.eval().cpu()
    model.save_to(str(folder / MODEL))
    weights = adapter_weights(model)
    if weights:
        # Plain tensors: NeMo's save_adapters writes a file that it cannot load.
        torch.save({name: weight.clone() for name, weight in weights.items()}, folder / ADAPTER)
    write_record(folder, "nemo", config.pretrained, config, final)


def _sizes(model: Any) -> dict[str, int]:
    weights = list(model.parameters())
    return {
        "trainable_parameters": sum(one.numel() for one in weights if one.requires_grad),
        "total_parameters": sum(one.numel() for one in weights),
    }


def _check(config: NemoConfig) -> None:
    if config.train.new_tokens and config.train.adapt == "adapter":
        raise ValueError(
            f"train.new_tokens is {config.train.new_tokens}, must be 0 with train.adapt=adapter: "
            "what follows the encoder is not trained then"
        )


def _prepare(model: Any, config: NemoConfig, train: Path, folder: Path) -> None:
    """Change the vocabulary, add the adapter and freeze, as ``config`` says."""
    settings = config.train
    if settings.new_tokens:
        rows = read_rows(train, Utterance)
        texts = (row.text or "" for row in rows)
        if config.text == "normalized":
            texts = (normalize_text(text) for text in texts)
        train_tokenizer(texts, folder, settings.new_tokens)
        model.change_vocabulary(new_tokenizer_dir=str(folder), new_tokenizer_type="bpe")
    if not settings.spec_augment:
        model.spec_augmentation = None
    if settings.adapt == "full":
        model.requires_grad_(True)
    elif settings.adapt == "freeze":
        model.requires_grad_(True)
        model.encoder.requires_grad_(False)
    else:
        if not adapter_weights(model):
            add_adapter(model, settings.adapter)
        model.requires_grad_(False)
        names = set(adapter_weights(model))
        for name, weight in model.named_parameters():
            weight.requires_grad_(name in names)


def _train_loader(config: TrainConfig, rows: Examples, rank: int, processes: int) -> Any:
    batches = DurationBatches(
        rows.durations,
        config.batch_seconds,
        config.max_batch,
        config.seed,
        rows.weights(config.age_balance),
        rank=rank,
        processes=processes,
    )
    return DataLoader(
        rows,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
    )


def dev_loader(config: TrainConfig, rows: Examples, rank: int, processes: int) -> Any:
    if len(rows) < processes:  # one without any would leave the others waiting
        raise ValueError(
            f"{rows.manifest}: {len(rows)} utterances can be used, must be at least one for each "
            f"of {processes} processes"
        )
    mine = Subset(rows, range(rank, len(rows), processes))
    longest = max(rows.durations)
    size = max(1, min(int(config.batch_seconds / longest), config.max_batch))
    return DataLoader(
        mine, batch_size=size, collate_fn=collate, num_workers=min(config.num_workers, 1)
    )


def _hear(model: Any, config: NemoConfig) -> Any:
    """Return greedy decoding of encoder output, with the head that will decode."""
    frame = frame_seconds(model)
    greedy = msgspec.structs.replace(config.decode, method="greedy", hotwords=())
    settings = msgspec.structs.replace(config, decode=greedy)
    if has_transducer(model) and config.head != "ctc":
        search = TransducerDecoder(model, frame, greedy)

        def hear_transducer(encoded: torch.Tensor, frames: torch.Tensor) -> list[str]:
            found = search.decode(encoded, frames, [float("inf")] * len(frames))
            return [one[0].hypothesis.text for one in found]

        return hear_transducer
    ctc = ctc_decoder(model, frame, settings)

    def hear(encoded: torch.Tensor, frames: torch.Tensor) -> list[str]:
        heard = log_probs(model, encoded)
        found = ctc.decode(heard, frames.tolist(), [float("inf")] * len(frames))
        return [one[0].hypothesis.text for one in found]

    return hear
