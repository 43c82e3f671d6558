"""Fine-tune OWSM: adapter or all weights, resumable, to ``exp/final`` in ESPnet's layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import EvalPrediction

from manifests.audio import SAMPLE_RATE
from scoring.metric import count_word_errors
from systems.examples import train_and_dev
from systems.experiment import FINAL
from systems.hf_run import begin, finish, sampler_of
from systems.hf_trainer import AsrTrainer, Batch, callbacks
from systems.owsm.average import average_checkpoints
from systems.owsm.cached_decoder import CachedDecoder, greedy
from systems.owsm.checkpoint import Owsm, load_owsm
from systems.owsm.config import OwsmConfig, OwsmTrainConfig
from systems.owsm.ctc import best_path
from systems.owsm.data import Collator, Examples, words_of_labels
from systems.owsm.layout import write_layout
from systems.owsm.text_mask import text_mask
from systems.record import write_record

ADAPTER = "adapter"
_PREFIX = 2  # frames that OWSM-CTC puts before the audio: language and task


def train(config: OwsmConfig, train: Path, dev: Path, exp: Path) -> Path:
    """Fine-tune ``config.pretrained`` on one manifest, choose by another, return ``exp/final``.

    Resumes at the last checkpoint after a kill; does nothing when ``final`` is there already.
    ValueError when ``exp`` was begun with other settings or other data. Under torchrun every
    process calls this; the first alone writes.
    """
    run = begin(config, train, dev, exp)
    if run is None:
        return exp / FINAL
    settings = config.train
    run.arguments.save_total_limit = max(2, settings.average)
    owsm = load_owsm(config.pretrained, window=config.window)
    parameters = sum(weight.numel() for weight in owsm.model.parameters())
    trained = Trained(adapt(owsm, settings), round(settings.shift_seconds * SAMPLE_RATE))
    train_set, dev_set = train_and_dev(
        lambda manifest, **how: Examples(
            manifest, owsm, text=config.text, previous_text=settings.previous_text, **how
        ),
        train, dev, settings,
    )  # fmt: skip
    trainer = AsrTrainer(
        model=trained,
        args=run.arguments,
        train_dataset=train_set,
        eval_dataset=dev_set,
        data_collator=Collator(owsm, fit=settings.fit_batches),
        compute_metrics=DevWer(owsm),
        callbacks=callbacks(settings),
        evaluate_batch=GreedySearch(owsm, config),
        sampler=sampler_of(settings, train_set, grouped=settings.fit_batches),
    )
    trainer.fit()
    averaged = average_checkpoints(trainer, settings.average)
    return finish(
        run,
        trainer,
        parameters,
        lambda folder: save(trained, owsm, config, folder, run.final),
        averaged_wer=averaged,
    )


class Trained(torch.nn.Module):
    """ESPnet's model, or an adapter around it, as the trainer wants it.

    ``state_dict`` holds what is trained and the buffers, so that a checkpoint of an adapter
    is small; what is loaded must be exactly that.
    """

    def __init__(self, model: Any, longest_shift: int = 0) -> None:
        super().__init__()
        self.model = model
        self._longest_shift = longest_shift  # samples

    def forward(
        self, labels: torch.Tensor, room: torch.Tensor, **batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the loss per label; ESPnet's is per utterance.

        In training some of each utterance's padding, ``room`` samples, is put before it.
        """
        if self.training and self._longest_shift:
            batch["speech"] = shifted(batch["speech"], room.clamp(max=self._longest_shift))
        loss, _, utterances = self.model(**batch)
        return {"loss": (loss * utterances).squeeze() / (labels != -100).sum()}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        whole: dict[str, Any] = super().state_dict(*args, **kwargs)
        frozen = {name for name, weight in self.named_parameters() if not weight.requires_grad}
        # safetensors refuses ESPnet's transposed mel filters.
        return {name: weight.contiguous() for name, weight in whole.items() if name not in frozen}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        wanted = self.state_dict().keys()
        if wanted != state_dict.keys():
            raise ValueError(
                f"checkpoint: {len(wanted ^ state_dict.keys())} weights differ in name from those "
                "that are trained, must be of this training"
            )
        found = super().load_state_dict(state_dict, strict=False)
        found.missing_keys.clear()  # the frozen ones, which are where they were
        return found

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Have each block computed again in the backward pass."""
        for name, module in self.model.named_modules():
            if hasattr(module, "gradient_checkpoint_layers"):
                blocks = module.decoders if name.endswith("decoder") else module.encoders
                module.gradient_checkpoint_layers = list(range(1, len(blocks) + 1))


def shifted(speech: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    """Return each row of padded speech some samples later, up to ``most`` of its padding."""
    by = (torch.rand(len(most), device=most.device) * (most + 1)).long().tolist()
    return torch.stack([row.roll(count, dims=0) for row, count in zip(speech, by, strict=True)])


def adapt(owsm: Owsm, config: OwsmTrainConfig) -> Any:
    """Return what is trained: the model itself, or a `peft.PeftModel` around it."""
    model = owsm.model
    model.error_calculator = None  # a CER of teacher forcing, which nobody reads
    if not config.spec_augment:
        model.specaug = None
    for weight in model.parameters():
        weight.requires_grad_(True)
    if config.adapt == "full":
        return model
    from peft import LoraConfig, get_peft_model

    if config.adapt == "decoder" and owsm.family == "ctc":
        raise ValueError("adapt is 'decoder', but OWSM-CTC has none: must be encoder+decoder")
    sides = r"decoder\.decoders" if config.adapt == "decoder" else r"(encoder|decoder)\..*"
    kinds = "|".join(map(re.escape, config.lora.targets))
    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=rf"{sides}\..*\.({kinds})|{sides}\.({kinds})",
    )
    return get_peft_model(model, lora)


class GreedySearch:
    """Loss and greedy transcript of a batch of dev."""

    def __init__(self, owsm: Owsm, config: OwsmConfig) -> None:
        self._owsm = owsm
        limit = config.decode
        self._limit = max(limit.min_tokens, round(limit.tokens_per_second * owsm.window))
        self._banned = text_mask(owsm)

    def __call__(self, trained: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        model = self._owsm.model
        loss = trained(**batch)["loss"]
        names = ("text_prev", "text_prev_lengths", "prefix", "prefix_lengths")
        marks = {key: batch[key].clone() for key in names if key in batch and "prefix" in batch}
        encoded, _ = model.encode(batch["speech"], batch["speech_lengths"], **marks)
        if isinstance(encoded, tuple):
            encoded = encoded[0]
        banned = self._banned.to(encoded.device)
        if self._owsm.family == "ctc":
            return loss, best_path(model.ctc.log_softmax(encoded)[:, _PREFIX:] + banned)
        primer = torch.cat((batch["text"].new_full((len(encoded), 1), model.sos),
                            batch["text"][:, :3]), dim=1)  # fmt: skip
        tokens = greedy(
            CachedDecoder(model.decoder, encoded), primer, model.eos, self._limit, banned
        )
        return loss, tokens


class DevWer:
    """Normalised WER of dev, from the gathered tokens."""

    def __init__(self, owsm: Owsm) -> None:
        self._owsm = owsm

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        references = words_of_labels(self._owsm, prediction.label_ids)
        heard = words_of_labels(self._owsm, prediction.predictions)
        return {"wer": count_word_errors(references, heard).rate}


def save(trained: Trained, owsm: Owsm, config: OwsmConfig, folder: Path, final: Path) -> None:
    """Write the whole model in ESPnet's layout and, where there is one, the adapter alone."""
    model = trained.model
    if config.train.adapt != "full":
        base = Path(config.pretrained).expanduser()
        named = str(base.resolve()) if base.exists() else config.pretrained
        model.peft_config["default"].base_model_name_or_path = named
        # False: peft would look for a Hugging Face config to learn whether embeddings have grown.
        model.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
        (folder / ADAPTER / "README.md").unlink(missing_ok=True)  # peft's empty model card
        model = model.merge_and_unload()
    weights = {name: weight.detach().cpu() for name, weight in model.state_dict().items()}
    conf = {**owsm.layout.config["preprocessor_conf"], "speech_length": owsm.window}
    arguments = {**owsm.layout.config, "preprocessor_conf": conf}
    write_layout(folder, arguments, weights, owsm.layout.root)
    write_record(folder, "owsm", config.pretrained, config, final)
