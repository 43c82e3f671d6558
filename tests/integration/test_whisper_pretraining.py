"""What lets a Whisper with random weights learn: CTC on its encoder, windows of short clips."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from systems.train import main
from systems.whisper.checkpoint import load_model
from systems.whisper.ctc_head import add_head, loss_of, remove_head
from systems.whisper.data import Collator
from systems.whisper.window import fit_each_batch, shorten, window_of
from tests.integration.conftest import WINDOW

SETTINGS = ["device=cpu", "train.num_workers=0", "train.batch_size=4", "train.accumulation=1"]
STEPS = ["train.max_steps=4", "train.eval_steps=2", "train.max_eval_utterances=4"]


def arguments(corpus, exp, pretrained, *overrides: str) -> list[str]:
    paths = ["--train", str(corpus.train), "--dev", str(corpus.dev), "--exp", str(exp)]
    return ["whisper", *paths, f"pretrained={pretrained}", *SETTINGS, *STEPS, *overrides]


def test_trained_with_ctc_and_short_windows_it_is_a_plain_checkpoint(
    tiny_whisper, tone_corpus, tmp_path
):
    exp = tmp_path / "exp"
    options = ["window=auto", "train.adapt=full", "train.ctc_weight=0.5", "train.choose_by=loss"]
    assert main(arguments(tone_corpus, exp, tiny_whisper, *options)) == 0
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tiny_whisper, exp / "final")
    )
    assert before.keys() == after.keys()
    assert {name: one.shape for name, one in before.items()} == {
        name: one.shape for name, one in after.items()
    }
    config = json.loads((exp / "final" / "config.json").read_text(encoding="utf-8"))
    assert config["max_source_positions"] == 50 * WINDOW
    found = json.loads((exp / "metrics.json").read_text(encoding="utf-8"))
    best = min(found["evaluations"], key=lambda one: one["loss"])
    assert (found["best_step"], found["best_wer"]) == (best["step"], best["wer"])
    # Where a killed run goes on from holds the head.
    saved = load_file(next((exp / "checkpoints").glob("checkpoint-*")) / "model.safetensors")
    assert "ctc_head.weight" in saved


def test_an_adapter_has_no_ctc(tiny_whisper, tone_corpus, tmp_path, capsys):
    options = ["window=2", "train.ctc_weight=0.5"]
    assert main(arguments(tone_corpus, tmp_path, tiny_whisper, *options)) != 0
    assert "must be 0 but for train.adapt=full" in capsys.readouterr().err


def test_the_loss_counts_text_alone_within_what_is_heard():
    torch.manual_seed(1)
    heard, blank = torch.randn(2, 6, 4), 3
    labels = torch.tensor([[9, 0, 1, 3], [9, 2, 3, -100]])  # 9 a mark, 3 the end
    mask = torch.tensor([[1] * 12, [1] * 7 + [0] * 5])  # 6 and 4 positions
    alone = [
        torch.nn.functional.ctc_loss(
            heard[i, :positions].log_softmax(-1)[:, None],
            torch.tensor([text]),
            [positions],
            [len(text)],
            blank=blank,
            reduction="sum",
        )
        for i, (positions, text) in enumerate([(6, [0, 1]), (4, [2])])
    ]
    torch.testing.assert_close(loss_of(heard, labels, mask, blank), sum(alone) / 7)


def test_the_head_is_heard_in_training_alone_and_leaves_nothing(tiny_whisper):
    model, processor = load_model(str(tiny_whisper))
    names = model.state_dict().keys()
    end = model.generation_config.eos_token_id
    batch = Collator(end)([example(processor, seconds, [50, 60, end]) for seconds in (0.5, 1.5)])
    model.eval()
    plain = model(**batch).loss
    add_head(model, 0.5)
    assert model(**batch).loss == plain
    model.train()
    mixed = model(**batch).loss
    assert mixed != plain
    mixed.backward()
    assert model.ctc_head.weight.grad.abs().sum() > 0
    remove_head(model)
    assert model.state_dict().keys() == names
    assert model(**batch).loss == plain


def test_a_batch_is_heard_as_in_a_window_of_its_length(tiny_whisper):
    model, processor = load_model(str(tiny_whisper))
    model.eval()
    end = model.generation_config.eos_token_id
    rows = [example(processor, seconds, [50, end]) for seconds in (0.31, 0.95)]
    batch = Collator(end, crop=True)(rows)
    assert batch["input_features"].shape[2] == batch["attention_mask"].shape[1] == 100
    fit_each_batch(model)
    heard = model.model.encoder(batch["input_features"]).last_hidden_state
    assert window_of(model) == WINDOW
    assert len(model.state_dict()["model.encoder.embed_positions.weight"]) == 50 * WINDOW
    other, _ = load_model(str(tiny_whisper))
    shorten(other, processor, 1.0)
    torch.testing.assert_close(
        heard, other.eval().model.encoder(batch["input_features"]).last_hidden_state
    )


def example(processor, seconds: float, targets: list[int]) -> dict:
    audio = torch.randn(round(16000 * seconds), generator=torch.Generator().manual_seed(1)).numpy()
    features = processor.feature_extractor(audio, sampling_rate=16000, return_tensors="np")
    frames = -(-len(audio) // 160)
    array = features.input_features[0]
    return {"features": array, "frames": frames, "inputs": [50, *targets[:-1]], "targets": targets}


@pytest.mark.parametrize("weight", [1.0, -0.1])
def test_an_impossible_weight_is_refused(tiny_whisper, weight):
    model, _ = load_model(str(tiny_whisper))
    with pytest.raises(ValueError, match="must be > 0 and < 1"):
        add_head(model, weight)
