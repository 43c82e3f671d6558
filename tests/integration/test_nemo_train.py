"""Fine-tuning NeMo models: adapter, frozen, full; killed and resumed; bad files; two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from manifests import read_manifest
from manifests.jsonl import write_rows
from manifests.rows import Utterance
from recipes.tiny_nemo import build
from scoring.metric import count_word_errors
from systems.config import load_config
from systems.nemo.checkpoint import ADAPTER, MODEL, load_model
from systems.nemo.config import NemoConfig
from systems.nemo.data import DurationBatches, Examples, collate
from systems.nemo.module import FineTuner
from systems.nemo.system import NemoSystem
from systems.nemo.train import dev_loader
from systems.train import main

SETTINGS = [
    "device=cpu",
    "text=raw",
    "train.num_workers=0",
    "train.batch_seconds=10",
    "train.accumulation=2",
    "train.max_steps=6",
    "train.eval_steps=2",
    "train.adapter.dim=8",
    "train.max_eval_utterances=6",
    "train.age_balance=1",
]


def arguments(corpus, exp: Path, pretrained: Path, *overrides: str) -> list[str]:
    paths = ["--train", str(corpus.train), "--dev", str(corpus.dev), "--exp", str(exp)]
    return ["nemo", *paths, f"pretrained={pretrained}", *SETTINGS, *overrides]


def metrics(exp: Path) -> dict:
    return json.loads((exp / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, trained_nemo, tone_corpus) -> Path:
    """An adapter run of six steps that nothing disturbed: its exp folder."""
    exp = tmp_path_factory.mktemp("adapted") / "exp"
    assert main(arguments(tone_corpus, exp, trained_nemo)) == 0
    return exp


def test_the_fixture_has_learned_the_tones(trained_nemo):
    assert metrics(trained_nemo.parent)["best_wer"] < 0.1


def test_an_adapter_changes_itself_alone(adapted, trained_nemo):
    """Not the batch norms either, whose statistics drift unseen in training mode."""
    final = adapted / "final"
    assert {path.name for path in final.iterdir()} == {MODEL, ADAPTER, "system.json"}
    before, after = load_model(trained_nemo).state_dict(), load_model(final).state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    added = {name for name in after if name not in before}
    assert added == set(torch.load(final / ADAPTER))
    found = metrics(adapted)
    assert found["trainable_parameters"] == sum(after[name].numel() for name in added)
    assert [entry["step"] for entry in found["evaluations"]] == [2, 4, 6]
    assert found["best_wer"] == min(entry["wer"] for entry in found["evaluations"])
    assert (found["steps"], found["train_utterances"], found["dev_utterances"]) == (6, 240, 6)
    assert list((adapted / "logs").glob("events.out.tfevents.*"))


def test_again_it_does_nothing_and_other_settings_are_refused(
    adapted, trained_nemo, tone_corpus, capsys
):
    before = (adapted / "metrics.json").stat().st_mtime_ns
    assert main(arguments(tone_corpus, adapted, trained_nemo, "decode.beams=9")) == 0
    assert (adapted / "metrics.json").stat().st_mtime_ns == before
    assert main(arguments(tone_corpus, adapted, trained_nemo, "train.seed=2")) == 1
    assert "train.seed was 1, is 2" in capsys.readouterr().err


def test_a_killed_run_goes_on_where_it_was(adapted, trained_nemo, tone_corpus, tmp_path, caplog):
    """After SIGKILL it resumes at the last whole checkpoint and ends like the undisturbed."""
    exp = tmp_path / "exp"
    command = [sys.executable, "-m", "systems.train"]
    command += arguments(tone_corpus, exp, trained_nemo)
    run = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while not (exp / "checkpoints" / "last.ckpt").exists() and run.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, run.stderr.read().decode()[-2000:]
    assert not (exp / "final").exists()
    (exp / "checkpoints" / "step=5.ckpt").write_bytes(b"torn by the kill")
    caplog.set_level("INFO")
    assert main(command[3:]) == 0
    assert any("resuming at step" in record.message for record in caplog.records)
    assert [entry["step"] for entry in metrics(exp)["evaluations"]] == [2, 4, 6]
    undisturbed = torch.load(adapted / "final" / ADAPTER)
    for name, weight in torch.load(exp / "final" / ADAPTER).items():
        assert torch.equal(weight, undisturbed[name]), name


def test_bad_files_cost_only_themselves_and_never_hang(trained_nemo, tone_corpus, tmp_path):
    rows = list(read_manifest(tone_corpus.train))[:30]
    (tmp_path / "bad.wav").write_bytes(b"RIFF....")
    changes: list[dict[str, object]] = [
        {"audio_filepath": str(tmp_path / "bad.wav")},
        {"audio_filepath": str(tmp_path / "missing.wav")},
        {"text": "\u00fcber"},
        {"text": "home " * 60},
        {"text": None},
    ]
    for i, change in enumerate(changes):
        fields = {name: getattr(rows[i], name) for name in rows[i].__struct_fields__}
        rows[i] = Utterance(**{**fields, **change})
    write_rows(tmp_path / "train.jsonl", rows)
    corpus = type(tone_corpus)(tmp_path / "train.jsonl", tone_corpus.dev)
    quick = ["train.max_steps=4", "train.eval_steps=3", "train.num_workers=1"]
    quick += ["train.report_to=[]", "train.age_balance=0", "train.adapt=freeze"]
    assert main(arguments(corpus, tmp_path / "exp", trained_nemo, *quick)) == 0
    found = metrics(tmp_path / "exp")
    # The last step is evaluated, whatever eval_steps is: else it could not be the result.
    assert [entry["step"] for entry in found["evaluations"]] == [3, 4]
    assert found["unreadable"]["train"] == 2
    assert sorted(found["left_out"]["train"].values()) == [1, 1, 1]
    before = load_model(trained_nemo).encoder.state_dict()
    after = load_model(tmp_path / "exp" / "final").encoder.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_a_tdt_with_new_tokens_trains_on_a_cpu_and_both_heads_decode(tone_corpus, tmp_path):
    texts = ["a I goed home", "tooths two mouses saw"] * 4
    init = build(texts, tmp_path / "init", kind="hybrid", d_model=32, layers=1, vocabulary=32)
    quick = ["train.max_steps=3", "train.eval_steps=9", "train.report_to=[]"]
    quick += ["train.adapt=full", "train.new_tokens=28", "train.precision=bf16"]
    assert main(arguments(tone_corpus, tmp_path / "exp", init, *quick)) == 0
    final = tmp_path / "exp" / "final"
    assert load_model(final).tokenizer.vocab_size == 28
    utterances = list(read_manifest(tone_corpus.dev))[:3]
    for head in ("ctc", "transducer"):
        for method in ("greedy", "beam"):
            wanted = ["device=cpu", f"head={head}", f"decode.method={method}", "decode.nbest=3"]
            system = NemoSystem(load_config(NemoConfig, None, wanted))
            rows = list(system.decode(utterances, str(final)))
            assert [row.error for row in rows] == [None] * 3


def test_a_ctc_learns_new_tokens_on_what_its_encoder_knows(trained_nemo, tone_corpus, tmp_path):
    """NeMo makes a new head and loss of CTC; were a blank misplaced, nothing would be learned."""
    wanted = ["train.adapt=freeze", "train.new_tokens=28", "train.learning_rate=2e-2"]
    wanted += ["train.max_steps=160", "train.eval_steps=160", "train.accumulation=1"]
    wanted += ["train.report_to=[]", "train.max_eval_utterances=0", "train.age_balance=0"]
    wanted += ["train.batch_seconds=30", "train.spec_augment=false"]
    assert main(arguments(tone_corpus, tmp_path / "exp", trained_nemo, *wanted)) == 0
    old, new = load_model(trained_nemo), load_model(tmp_path / "exp" / "final")
    assert old.tokenizer.vocab_size != new.tokenizer.vocab_size == 28
    pieces = [new.tokenizer.tokenizer.id_to_piece(index) for index in range(28)]
    assert list(new.decoder.vocabulary) == pieces
    assert new.loss._blank == new.decoder.num_classes_with_blank - 1 == 28
    before, after = old.encoder.state_dict(), new.encoder.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert metrics(tmp_path / "exp")["best_wer"] < 0.3
    utterances = [row for row in read_manifest(tone_corpus.dev) if row.text]
    for method in ("greedy", "beam"):
        config = load_config(
            NemoConfig, None, ["device=cpu", f"decode.method={method}", "decode.processes=1"]
        )
        found = NemoSystem(config).decode(utterances, str(tmp_path / "exp" / "final"))
        rows = {row.utt_id: row.best.text for row in found}
        heard = [rows[row.utt_id] for row in utterances]
        assert count_word_errors([row.text for row in utterances], heard).rate < 0.4


def test_new_tokens_need_more_than_an_adapter(trained_nemo, tone_corpus, tmp_path, capsys):
    wrong = arguments(tone_corpus, tmp_path / "exp", trained_nemo, "train.new_tokens=20")
    assert main(wrong) == 1
    assert "must be 0 with train.adapt=adapter" in capsys.readouterr().err


def test_two_processes_train_one_model(trained_nemo, tone_corpus, tmp_path):
    """And report it once, to Weights & Biases too, which without a network writes files."""
    exp = tmp_path / "exp"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc_per_node", "2", "-m", "systems.train"]
    wanted = ["train.max_steps=2", "train.eval_steps=2", "train.report_to=[tensorboard,wandb]"]
    command += arguments(tone_corpus, exp, trained_nemo, *wanted)
    offline = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    run = subprocess.run(command, capture_output=True, text=True, env=offline)
    assert run.returncode == 0, run.stderr[-3000:]
    assert (metrics(exp)["processes"], metrics(exp)["steps"]) == (2, 2)
    assert (exp / "final" / ADAPTER).exists()
    assert len(list(exp.glob("wandb/offline-run-*/*.wandb"))) == 1
    assert len(list(exp.glob("logs/events.out.tfevents.*"))) == 1


def test_the_loss_on_dev_is_that_of_any_batches(trained_nemo, tone_corpus):
    """And so of any number of processes, each of which takes its share."""
    model = load_model(trained_nemo)
    rows = Examples(tone_corpus.dev, 30.0, model.tokenizer, 0.08, "raw", training=False)
    tuner = FineTuner(model, NemoConfig().train, lambda encoded, frames: [""] * len(frames))
    losses = []
    for size in (7, 3):
        tuner.on_validation_epoch_start()
        for first in range(0, 7, size):
            batch = collate([rows[i] for i in range(first, min(first + size, 7))])
            with torch.inference_mode():
                tuner.validation_step(batch, 0)
        _, _, value, utterances = tuner._counts.tolist()
        losses.append(value / utterances)
        assert utterances == 7
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_two_processes_need_two_utterances_of_dev(trained_nemo, tone_corpus, tmp_path):
    write_rows(tmp_path / "one.jsonl", list(read_manifest(tone_corpus.dev))[:1])
    model = load_model(trained_nemo)
    rows = Examples(tmp_path / "one.jsonl", 30.0, model.tokenizer, 0.08, "raw", training=False)
    assert len(dev_loader(NemoConfig().train, rows, 0, 1)) == 1
    with pytest.raises(ValueError, match=r"one\.jsonl: 1 utterances can be used, must be at"):
        dev_loader(NemoConfig().train, rows, 0, 2)


def test_batches_are_of_like_length_and_cover_an_epoch_once():
    durations = [0.5 + (i * 37 % 100) / 10 for i in range(300)]
    one = DurationBatches(durations, 60, 16, seed=1)
    batches = one.epoch(0)
    assert sorted(row for batch in batches for row in batch) == list(range(300))
    for batch in batches:
        assert len(batch) <= 16
        assert len(batch) * max(durations[row] for row in batch) <= 60
    audio = sum(durations)
    padded = sum(len(batch) * max(durations[row] for row in batch) for batch in batches)
    assert padded < 1.15 * audio
    assert batches != one.epoch(1)


def test_a_resumed_plan_goes_on_and_processes_share_it():
    durations = [1.0 + i % 7 for i in range(50)]
    plan = iter(DurationBatches(durations, 20, 8, seed=3))
    whole = [next(plan) for _ in range(40)]
    later = DurationBatches(durations, 20, 8, seed=3)
    later.start = 25
    again = iter(later)
    assert [next(again) for _ in range(15)] == whole[25:]
    ranks = [DurationBatches(durations, 20, 8, seed=3, rank=r, processes=2) for r in (0, 1)]
    firsts = [list(sampler.epoch(0)) for sampler in ranks]
    assert firsts[0] == firsts[1]
    one, two = (next(iter(sampler)) for sampler in ranks)
    assert [one, two] == firsts[0][:2]
