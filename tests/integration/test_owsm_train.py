"""OWSM's fine-tuning: what it learns from, what it trains, and that it survives a kill."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from manifests import Utterance, write_rows
from systems.config import load_config
from systems.hf_trainer import AsrTrainer
from systems.owsm.checkpoint import load_owsm
from systems.owsm.config import OwsmConfig
from systems.owsm.data import Collator, Examples
from systems.owsm.train import ADAPTER, Trained, adapt, shifted, train

BASICS = (
    "device=cpu",
    "train.batch_size=8",
    "train.accumulation=1",
    "train.num_workers=0",
    "train.max_eval_utterances=4",
    "train.report_to=[]",
    "train.max_steps=6",
    "train.eval_steps=2",
    "train.learning_rate=1e-3",
)


def config(pretrained: Path, *overrides: str) -> OwsmConfig:
    return load_config(OwsmConfig, None, [*BASICS, f"pretrained={pretrained}", *overrides])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(
        folder / "exp" / "owsm" / "model.pth", weights_only=True
    )
    return found


def test_marks_are_written_once_and_nothing_is_lost(tiny_owsm: Path, tone_corpus: Any) -> None:
    """``<notimestamps>`` neither twice nor never, whatever the draw; the words with their ▁."""
    owsm = load_owsm(tiny_owsm)
    examples = Examples(tone_corpus.dev, owsm, training=True)
    collate = Collator(owsm)
    for _ in range(4):
        batch = collate([examples[index] for index in range(len(examples))])
        for index in range(len(examples)):
            said = examples.row(index).text or ""
            length = int(batch["text_lengths"][index])
            tokens = [owsm.tokens[token] for token in batch["text"][index, :length].tolist()]
            assert tokens[:3] == ["<eng>", "<asr>", "<notimestamps>"]
            assert "".join(tokens[3:]).replace("\u2581", " ").strip() == said
            assert not any(token.startswith("<") for token in tokens[3:])
            assert owsm.text(batch["text_ctc"][index][batch["text_ctc"][index] >= 0]) == said
        assert batch["speech"].shape[1] == owsm.samples
    assert int((batch["labels"] != -100).sum()) == int(batch["text_lengths"].sum())


def test_a_batch_of_short_clips_is_short_and_nothing_is_lost(
    tiny_owsm: Path, tone_corpus: Any
) -> None:
    owsm = load_owsm(tiny_owsm)
    examples = Examples(tone_corpus.dev, owsm, training=True)
    shortest = sorted(range(len(examples)), key=lambda index: examples.durations[index])[:3]
    rows = [examples[index] for index in shortest]
    whole, short = Collator(owsm)(rows), Collator(owsm, fit=True)(rows)
    size = short["speech"].shape[1]
    assert size < whole["speech"].shape[1] == owsm.samples
    assert torch.equal(short["speech"], whole["speech"][:, :size])
    assert not whole["speech"][:, size:].any()
    assert short["speech_lengths"].tolist() == [size] * 3
    # What may be put before each clip is what is left of the shorter batch.
    assert (whole["room"] - short["room"]).tolist() == [owsm.samples - size] * 3
    assert int(short["room"].min()) >= 0
    assert torch.equal(short["labels"], whole["labels"])


def test_audio_is_shifted_but_never_cut() -> None:
    speech = torch.zeros(2, 10, 1)
    speech[0, :4] = 1
    speech[1] = 2
    starts = set()
    for _ in range(50):
        moved = shifted(speech, torch.tensor([3, 0]))
        start = int(moved[0, :, 0].nonzero()[0, 0])
        assert moved[0, start : start + 4].eq(1).all()
        assert moved.sum() == speech.sum()
        starts.add(start)
    assert starts == {0, 1, 2, 3}


def test_the_text_before_is_given(tiny_owsm: Path, tone_corpus: Any, tmp_path: Path) -> None:
    owsm = load_owsm(tiny_owsm)
    first = next(Examples(tone_corpus.dev, owsm, training=False).row(index) for index in [0])
    rows = [
        Utterance(
            utt_id=f"u{index}",
            audio_filepath=str(tone_corpus.dev.parent / first.audio_filepath),
            duration=first.duration,
            text=text,
            speaker="s",
            session="one",
        )
        for index, text in enumerate(["two mouses", "I saw"])
    ]
    write_rows(tmp_path / "m.jsonl", rows)
    examples = Examples(tmp_path / "m.jsonl", owsm, training=True, previous_text=1.0)
    before = [owsm.text(examples[index]["text_prev"]) for index in (0, 1)]
    assert before == ["", "two mouses"]


def test_what_does_not_fit_is_left_out_and_counted(
    tiny_owsm: Path, tone_corpus: Any, tmp_path: Path
) -> None:
    owsm = load_owsm(tiny_owsm)
    row = Examples(tone_corpus.dev, owsm, training=False).row(0)
    audio = str(tone_corpus.dev.parent / row.audio_filepath)

    def utterance(name: str, text: str, duration: float = row.duration) -> Utterance:
        return Utterance(utt_id=name, audio_filepath=audio, duration=duration, text=text)

    write_rows(
        tmp_path / "m.jsonl",
        [
            utterance("good", "I saw"),
            utterance("long", "I saw", 2.5),
            utterance("dense", "I " * 40),
            utterance("mark", "I <eng> saw"),
        ],
    )
    examples = Examples(tmp_path / "m.jsonl", owsm, training=True)
    assert len(examples) == 1
    assert sum(examples.left_out.values()) == 3


@pytest.mark.parametrize("side", ["decoder", "encoder+decoder"])
def test_an_adapter_trains_only_itself(
    tiny_owsm: Path, tone_corpus: Any, tmp_path: Path, side: str
) -> None:
    from peft import PeftModel

    settings = config(tiny_owsm, f"train.adapt={side}", "train.lora.rank=4")
    final = train(settings, tone_corpus.dev, tone_corpus.dev, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 < metrics["trainable_parameters"] < 0.1 * metrics["total_parameters"]
    before, after = weights(tiny_owsm), weights(final)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name].float(), after[name])}
    assert changed
    assert all(name.split(".")[-2] in settings.train.lora.targets for name in changed)
    assert all(name.startswith("decoder.") for name in changed) == (side == "decoder")
    base = load_owsm(tiny_owsm).model
    merged = PeftModel.from_pretrained(base, final / ADAPTER).merge_and_unload().state_dict()
    for name, weight in after.items():
        torch.testing.assert_close(merged[name], weight, atol=1e-6, rtol=1e-5)
    checkpoint = max((tmp_path / "checkpoints").glob("checkpoint-*"))
    saved = load_file(checkpoint / "model.safetensors")
    assert (
        sum(weight.numel() for name, weight in saved.items() if "lora" in name)
        == (metrics["trainable_parameters"])
    )


@pytest.mark.parametrize("adapt_to", ["full", "decoder", "encoder+decoder"])
def test_checkpointed_gradients_are_the_same(
    tiny_owsm: Path, tone_corpus: Any, adapt_to: str
) -> None:
    """What is trained is computed twice, and has the gradients that it has without."""
    gradients, forwards = [], []
    for checkpointed in (False, True):
        torch.manual_seed(1)
        owsm = load_owsm(tiny_owsm)
        examples = Examples(tone_corpus.dev, owsm, training=True)
        batch = Collator(owsm)([examples[index] for index in range(4)])
        wanted = ("train.lora.dropout=0", f"train.adapt={adapt_to}", "train.spec_augment=false")
        trained = Trained(adapt(owsm, config(tiny_owsm, *wanted).train)).train()
        if checkpointed:
            trained.gradient_checkpointing_enable()
        calls: list[int] = []
        blocks = [*owsm.model.encoder.encoders, *owsm.model.decoder.decoders]
        for index, block in enumerate(blocks):
            block.register_forward_pre_hook(lambda *_, own=index, seen=calls: seen.append(own))
        trained(**batch)["loss"].backward()
        forwards.append(len(calls) / len(blocks))
        gradients.append(
            {name: one.grad for name, one in trained.named_parameters() if one.grad is not None}
        )
    frozen = len(owsm.model.encoder.encoders) if adapt_to == "decoder" else 0
    assert forwards == [1, 2 - frozen / len(blocks)]
    assert gradients[0].keys() == gradients[1].keys() != set()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_bf16_with_checkpoints_learns_as_fp32_does(
    tiny_owsm: Path, tone_corpus: Any, tmp_path: Path
) -> None:
    losses, ends = {}, {}
    for precision in ("fp32", "bf16"):
        wanted = ("train.adapt=full", "train.spec_augment=false", "train.shift_seconds=0")
        wanted += (f"train.precision={precision}", "train.gradient_checkpointing=true")
        settings = config(tiny_owsm, *wanted)
        final = train(settings, tone_corpus.train, tone_corpus.dev, tmp_path / precision)
        metrics = json.loads((tmp_path / precision / "metrics.json").read_text())
        assert metrics["precision"] == precision
        losses[precision] = [entry["loss"] for entry in metrics["evaluations"]]
        ends[precision] = weights(final)
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"][-1] < losses["bf16"][0]
    # The weights themselves are float32, and were moved the same way.
    name = "ctc.ctc_lo.weight"
    start = weights(tiny_owsm)[name].flatten()
    moved = [(ends[precision][name].flatten() - start) for precision in ("fp32", "bf16")]
    assert ends["bf16"][name].dtype == torch.float32
    assert float(torch.cosine_similarity(moved[0], moved[1], dim=0)) > 0.9


def test_two_processes_train_one_model(tiny_owsm: Path, tone_corpus: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", "-m", "systems.train", "owsm"]
    command += ["--train", str(tone_corpus.train), "--dev", str(tone_corpus.dev)]
    command += ["--exp", str(tmp_path / "exp"), *BASICS, f"pretrained={tiny_owsm}"]
    run = subprocess.run(
        [*command, "train.max_steps=2", "train.eval_steps=2"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    metrics = json.loads((tmp_path / "exp" / "metrics.json").read_text())
    assert (metrics["processes"], metrics["steps"]) == (2, 2)
    before, after = weights(tiny_owsm), weights(tmp_path / "exp" / "final")
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_killed_training_resumes_to_the_same_weights(
    tiny_owsm: Path, tone_corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tiny_owsm, "train.adapt=full", "train.shift_seconds=0.2", "train.average=2")
    whole = train(settings, tone_corpus.dev, tone_corpus.dev, tmp_path / "whole")

    step = AsrTrainer.training_step
    steps = 0

    def killed(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(AsrTrainer, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings, tone_corpus.dev, tone_corpus.dev, tmp_path / "killed")
    assert not (tmp_path / "killed" / "final").exists()
    resumed = train(settings, tone_corpus.dev, tone_corpus.dev, tmp_path / "killed")
    left, right = weights(whole), weights(resumed)
    assert all(torch.equal(left[name], right[name]) for name in left)
    metrics = json.loads((tmp_path / "killed" / "metrics.json").read_text())
    assert metrics["averaged_wer"] is not None
