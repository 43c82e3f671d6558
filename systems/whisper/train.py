"""Fine-tune Whisper: adapter or all weights, from any checkpoint, resumable, to ``exp/final``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    EvalPrediction,
    GenerationMixin,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)
from transformers.modeling_outputs import BaseModelOutput

from scoring.metric import count_word_errors
from systems.examples import train_and_dev
from systems.experiment import FINAL
from systems.hf_run import begin, finish, sampler_of
from systems.hf_trainer import AsrTrainer, Batch, callbacks
from systems.record import write_record
from systems.whisper.checkpoint import load_model, quiet_peft, save_processor
from systems.whisper.config import WhisperConfig, WhisperTrainConfig
from systems.whisper.ctc_head import add_head, remove_head
from systems.whisper.data import Collator, Examples, Tokens
from systems.whisper.window import fit_each_batch, window_of


def train(config: WhisperConfig, train: Path, dev: Path, exp: Path) -> Path:
    """Fine-tune ``config.pretrained`` on one manifest, choose by another, return ``exp/final``.

    Resumes at the last checkpoint after a kill; does nothing when ``final`` is there already.
    ValueError when ``exp`` was begun with other settings or other data. Under torchrun every
    process calls this; the first alone writes.
    """
    run = begin(config, train, dev, exp)
    if run is None:
        return exp / FINAL
    window = None if config.window == "auto" else config.window
    model, processor = load_model(config.pretrained, window=window)
    model_parameters = model.num_parameters()
    if config.window == "auto":
        fit_each_batch(model)
    trained = adapt(model, config.train)
    tokens = Tokens(
        processor, model.generation_config, model.config.max_target_positions, config.text
    )
    train_set, dev_set = train_and_dev(
        lambda manifest, **how: Examples(manifest, processor, tokens, **how),
        train, dev, config.train,
    )  # fmt: skip
    trainer = AsrTrainer(
        model=trained,
        args=run.arguments,
        train_dataset=train_set,
        eval_dataset=dev_set,
        data_collator=Collator(model.config.pad_token_id, crop=config.window == "auto"),
        compute_metrics=DevWer(processor),
        callbacks=callbacks(config.train),
        evaluate_batch=GreedySearch(model, config),
        # Where windows are as short as each batch allows, clips of one length belong together.
        sampler=sampler_of(config.train, train_set, grouped=config.window == "auto"),
    )
    trainer.fit()
    return finish(
        run,
        trainer,
        model_parameters,
        lambda folder: save(trained, processor, config, folder, run.final),
    )


def adapt(model: WhisperForConditionalGeneration, config: WhisperTrainConfig) -> Any:
    """Return what is trained: the model itself, or a `peft.PeftModel` around it."""
    # transformers warns of this tied weight whenever it loads a checkpoint.
    model._keys_to_ignore_on_save = {"proj_out.weight"}
    model.config.apply_spec_augment = config.spec_augment
    model.config.mask_time_prob = config.mask_time_prob
    model.config.mask_feature_prob = config.mask_feature_prob
    model.config.use_cache = False
    if config.adapt == "full":
        if config.ctc_weight:
            add_head(model, config.ctc_weight)
        return model
    if config.ctc_weight:
        raise ValueError(
            f"train.ctc_weight is {config.ctc_weight:g}, must be 0 but for train.adapt=full: "
            "an adapter begins with an encoder that listens"
        )
    from peft import LoraConfig, get_peft_model

    sides = "decoder" if config.adapt == "decoder" else "(encoder|decoder)"
    kinds = "|".join(map(re.escape, config.lora.targets))
    lora = LoraConfig(
        # With a task type, peft passes input_ids, which Whisper's forward does not take.
        task_type=None,
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=rf"model\.{sides}\.layers\..*\.({kinds})",
    )
    with quiet_peft():
        return get_peft_model(model, lora)


class GreedySearch:
    """Loss and greedy transcript of a batch of dev, from one pass of the encoder."""

    def __init__(self, model: WhisperForConditionalGeneration, config: WhisperConfig) -> None:
        self._model = model
        self._limit = config.decode
        self._prompt_length = 4 if model.generation_config.is_multilingual else 2

    def __call__(self, adapted: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self._model.model.encoder(batch["input_features"]).last_hidden_state
        loss = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            decoder_input_ids=batch["decoder_input_ids"],
            labels=batch["labels"],
        ).loss
        seconds = int(batch["attention_mask"].sum(1).max()) / 100
        wanted = max(self._limit.min_tokens, round(self._limit.tokens_per_second * seconds))
        room = self._model.config.max_target_positions - self._prompt_length
        tokens = GenerationMixin.generate(
            self._model,
            # Generation may change what it is given: never the same object twice.
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden.clone()),
            attention_mask=batch["attention_mask"],
            decoder_input_ids=batch["decoder_input_ids"][:, : self._prompt_length],
            max_length=self._prompt_length + min(wanted, room),
            begin_suppress_tokens=None,  # they forbid the empty transcript of silence
            use_cache=True,
        )
        return loss, tokens[:, self._prompt_length :]


class DevWer:
    """Normalised WER of dev, from the gathered tokens."""

    def __init__(self, processor: WhisperProcessor) -> None:
        self._tokenizer = processor.tokenizer

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        references = self._texts(prediction.label_ids)
        return {"wer": count_word_errors(references, self._texts(prediction.predictions)).rate}

    def _texts(self, rows: NDArray[np.int64]) -> list[str]:
        return [
            self._tokenizer.decode(row[row >= 0], skip_special_tokens=True).strip() for row in rows
        ]


def save(
    trained: Any, processor: WhisperProcessor, config: WhisperConfig, folder: Path, final: Path
) -> None:
    """Write a trained model with all that decoding, and other toolkits, look for."""
    full = config.train.adapt == "full"
    model = trained if full else trained.get_base_model()
    model.config.use_cache = True
    remove_head(model)
    if not full:
        base = Path(config.pretrained).expanduser()
        named = str(base.resolve()) if base.is_dir() else config.pretrained
        trained.peft_config["default"].base_model_name_or_path = named
    trained.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    model.generation_config.save_pretrained(folder)
    save_processor(processor, folder)
    write_record(folder, "whisper", config.pretrained, config, final, window_of(model))
