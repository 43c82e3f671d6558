"""Fine-tuning Whisper from the command line: LoRA or full, killed and resumed, on two processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from manifests.jsonl import read_rows, write_rows
from manifests.rows import Utterance
from systems.lock import OnlyOne
from systems.record import read_record
from systems.train import main
from systems.whisper.checkpoint import load_model
from systems.whisper.merge import main as merge

SETTINGS = [
    "window=2",
    "device=cpu",
    "train.num_workers=0",
    "train.batch_size=8",
    "train.accumulation=2",
    "train.max_steps=9",
    "train.eval_steps=3",
    "train.learning_rate=1e-3",
    "train.lora.rank=4",
    "train.age_balance=1",
]


def arguments(corpus, exp: Path, pretrained: Path, *overrides: str) -> list[str]:
    paths = ["--train", str(corpus.train), "--dev", str(corpus.dev), "--exp", str(exp)]
    return ["whisper", *paths, f"pretrained={pretrained}", *SETTINGS, *overrides]


@pytest.fixture(scope="session")
def adapted(tmp_path_factory, trained_whisper, tone_corpus) -> Path:
    """A LoRA run of nine steps that nothing disturbed: its exp folder."""
    exp = tmp_path_factory.mktemp("adapted") / "exp"
    assert main(arguments(tone_corpus, exp, trained_whisper)) == 0
    return exp


def metrics(exp: Path) -> dict:
    return json.loads((exp / "metrics.json").read_text(encoding="utf-8"))


def test_the_fixture_has_learned_the_tones(trained_whisper):
    assert metrics(trained_whisper.parent)["best_wer"] < 0.2


def test_final_holds_the_adapter_alone_and_all_that_others_look_for(adapted, trained_whisper):
    final = adapted / "final"
    assert {path.name for path in final.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "generation_config.json",
        "normalizer.json",
        "preprocessor_config.json",
        "processor_config.json",
        "system.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    record = read_record(final)
    assert (record.base, record.window) == (str(trained_whisper), 2)
    assert record.config["train"]["lora"]["rank"] == 4
    assert not list(adapted.glob("*.part"))


def test_metrics_tell_what_reports_need(adapted):
    found = metrics(adapted)
    assert [entry["step"] for entry in found["evaluations"]] == [3, 6, 9]
    assert found["best_wer"] == min(entry["wer"] for entry in found["evaluations"])
    assert found["steps"] == 9
    assert 0 < found["trainable_parameters"] < 0.2 * found["total_parameters"]
    assert found["train_seconds"] > 0
    assert found["peak_memory_bytes"] > 1e8
    assert (found["train_utterances"], found["dev_utterances"]) == (240, 21)


def test_tensorboard_has_curves_by_default(adapted):
    assert list((adapted / "logs").glob("events.out.tfevents.*"))


def test_the_best_checkpoint_is_the_one_kept(adapted):
    best = adapted / "checkpoints" / f"checkpoint-{metrics(adapted)['best_step']}"
    saved = load_file(adapted / "final" / "adapter_model.safetensors")
    for name, weight in load_file(best / "adapter_model.safetensors").items():
        assert torch.equal(saved[name], weight)


def test_again_it_does_nothing_and_other_settings_are_refused(
    adapted, trained_whisper, tone_corpus, capsys
):
    before = (adapted / "metrics.json").stat().st_mtime_ns
    assert main(arguments(tone_corpus, adapted, trained_whisper, "decode.beams=2")) == 0
    assert (adapted / "metrics.json").stat().st_mtime_ns == before
    assert main(arguments(tone_corpus, adapted, trained_whisper, "train.seed=2")) == 1
    assert "train.seed was 1, is 2" in capsys.readouterr().err
    typo = arguments(tone_corpus, adapted, trained_whisper, "train.sed=2")
    assert main(typo) == 1
    assert "unknown key 'sed'" in capsys.readouterr().err


def is_whole(state: Path) -> bool:
    try:
        return bool(json.loads(state.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def test_a_killed_run_goes_on_where_it_was(adapted, trained_whisper, tone_corpus, tmp_path, caplog):
    """After SIGKILL it resumes at the last checkpoint and ends bit by bit like the undisturbed."""
    exp = tmp_path / "exp"
    command = [sys.executable, "-m", "systems.train"]
    command += arguments(tone_corpus, exp, trained_whisper)
    run = subprocess.Popen(command, stderr=subprocess.PIPE)
    state = exp / "checkpoints" / "checkpoint-3" / "trainer_state.json"
    deadline = time.monotonic() + 300
    while not is_whole(state) and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signal.SIGSTOP)
    with pytest.raises(ValueError, match="exp: another process is writing it"):
        OnlyOne(exp / "lock", exp)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, run.stderr.read().decode()[-2000:]
    assert not (exp / "final").exists()
    # And the kill tore a checkpoint that was just being written.
    torn = exp / "checkpoints" / "checkpoint-8"
    torn.mkdir()
    (torn / "adapter_model.safetensors").write_bytes(b"half")
    caplog.set_level("INFO")
    assert main(command[3:]) == 0
    assert any("resuming at step" in record.message for record in caplog.records)
    first = min(int(r.message.split()[1]) for r in caplog.records if r.message.startswith("step "))
    assert first > 3
    assert metrics(exp)["steps"] == 9
    assert [e["step"] for e in metrics(exp)["evaluations"]] == [3, 6, 9]
    undisturbed = load_file(adapted / "final" / "adapter_model.safetensors")
    for name, weight in load_file(exp / "final" / "adapter_model.safetensors").items():
        assert torch.equal(weight, undisturbed[name]), name


def test_killed_after_the_last_step_it_only_publishes(
    adapted, trained_whisper, tone_corpus, tmp_path
):
    exp = tmp_path / "moved"  # the best checkpoint is found though the folder was moved
    shutil.copytree(adapted, exp)
    shutil.rmtree(exp / "final")
    (adapted / "checkpoints").rename(adapted / "away")
    try:
        assert main(arguments(tone_corpus, exp, trained_whisper)) == 0
    finally:
        (adapted / "away").rename(adapted / "checkpoints")
    assert metrics(exp)["steps"] == 9
    wanted = load_file(adapted / "final" / "adapter_model.safetensors")
    found = load_file(exp / "final" / "adapter_model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())


def test_merged_it_is_a_plain_checkpoint(adapted, tmp_path, capsys):
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    final, out = adapted / "final", tmp_path / "merged"
    assert merge([str(final), "--out", str(out)]) == 0
    plain = WhisperForConditionalGeneration.from_pretrained(out).eval()
    processor = WhisperProcessor.from_pretrained(out)
    model, ours = load_model(final)
    audio = torch.randn(16000).numpy() * 0.1
    features = processor(audio, sampling_rate=16000, return_tensors="pt").input_features
    mine = ours(audio, sampling_rate=16000, return_tensors="pt").input_features
    assert torch.equal(features, mine)
    labels = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        theirs = plain(input_features=features, labels=labels).logits
        logits = model(input_features=features, labels=labels).logits
    torch.testing.assert_close(theirs, logits, rtol=0, atol=1e-4)
    assert plain.generation_config.lang_to_id == model.generation_config.lang_to_id
    assert merge([str(final), "--out", str(out)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_two_processes_train_one_model(trained_whisper, tone_corpus, tmp_path):
    exp = tmp_path / "exp"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc_per_node", "2", "-m", "systems.train"]
    command += arguments(tone_corpus, exp, trained_whisper, "train.max_steps=2")
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    found = metrics(exp)
    assert (found["processes"], found["steps"]) == (2, 2)
    assert (exp / "final" / "adapter_model.safetensors").exists()
    assert len(list((exp / "logs").glob("events.*"))) == 1  # the first process alone writes


def test_decoder_only_full_bf16_checkpointing_and_early_stopping(
    trained_whisper, tone_corpus, tmp_path
):
    kept = ["train.eval_steps=1", "train.patience=2", "train.report_to=[]", "train.lora.rank=2"]
    # The learning rate makes every evaluation after the first as bad or worse.
    still = ["train.learning_rate=1e-12", "train.max_eval_utterances=6"]
    decoder = arguments(tone_corpus, tmp_path / "d", trained_whisper, *kept, *still)
    decoder += ["train.adapt=decoder", "train.gradient_checkpointing=true"]
    assert main([*decoder, "train.precision=bf16"]) == 0
    found = metrics(tmp_path / "d")
    assert (found["steps"], found["best_step"], found["precision"]) == (3, 1, "bf16")
    names = load_file(tmp_path / "d" / "final" / "adapter_model.safetensors")
    assert names
    assert all(".decoder." in name for name in names)
    full = arguments(tone_corpus, tmp_path / "f", trained_whisper, *kept, "train.adapt=full")
    assert main([*full, "train.max_steps=1"]) == 0
    assert (tmp_path / "f" / "final" / "model.safetensors").exists()
    load_model(tmp_path / "f" / "final")


def test_wandb_offline_by_config(trained_whisper, tone_corpus, tmp_path, monkeypatch):
    """In a process of its own: the service that W&B starts must not be this one's to wait for."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    exp = tmp_path / "exp"
    few = ["train.report_to=[wandb]", "train.max_steps=1", "train.max_eval_utterances=4"]
    command = [*arguments(tone_corpus, exp, trained_whisper, *few), "--traceback"]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "systems.train", *command],
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + 240
        while run.poll() is None and not (exp / "final").exists() and time.monotonic() < until:
            time.sleep(0.2)
        # Its exit handler waits for the service without limit, which is not ours to test.
        with suppress(subprocess.TimeoutExpired):
            run.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert (exp / "final").exists(), (tmp_path / "log").read_text()
    assert list((exp / "wandb").glob("offline-run-*"))


def test_unreadable_audio_and_unfit_rows_cost_only_themselves(
    trained_whisper, tone_corpus, tmp_path, caplog
):
    rows = list(read_rows(tone_corpus.train, Utterance))[:40]
    folder = tone_corpus.train.parent
    (tmp_path / "bad.wav").write_bytes(b"RIFF....")

    def changed(row: Utterance, **fields: object) -> Utterance:
        path = str(folder / row.audio_filepath)
        return Utterance(
            **{
                **{f: getattr(row, f) for f in row.__struct_fields__},
                "audio_filepath": path,
                **fields,
            }
        )

    rows = [changed(row) for row in rows]
    rows[0] = changed(rows[0], audio_filepath="bad.wav")
    rows[1] = changed(rows[1], audio_filepath="missing.wav")
    rows[2] = changed(rows[2], duration=3.0)
    rows[3] = changed(rows[3], text="home " * 600)
    rows[4] = changed(rows[4], text=None)
    write_rows(tmp_path / "train.jsonl", rows)
    corpus = type(tone_corpus)(tmp_path / "train.jsonl", tone_corpus.dev)
    exp = tmp_path / "exp"
    quick = ["train.max_steps=4", "train.eval_steps=4", "train.max_eval_utterances=4"]
    quick += ["train.num_workers=1", "train.report_to=[]", "train.age_balance=0"]
    assert main(arguments(corpus, exp, trained_whisper, *quick)) == 0
    found = metrics(exp)
    assert found["unreadable"]["train"] == 2
    assert sorted(found["left_out"]["train"].values()) == [1, 1, 1]
    assert found["train_utterances"] == 37


@pytest.mark.parametrize(("lost", "workers"), [("train", 1), ("dev", 0)])
def test_a_manifest_without_any_audio_is_one_line(
    trained_whisper, tone_corpus, tmp_path, capsys, lost, workers
):
    """Of dev too: a checkpoint chosen on silence would look like any other."""
    rows = list(read_rows(tone_corpus.dev, Utterance))[:4]
    write_rows(tmp_path / "lost.jsonl", rows)  # and no audio beside it
    corpus = tone_corpus._replace(**{lost: tmp_path / "lost.jsonl"})
    exp = tmp_path / "exp"
    quick = ["train.max_steps=1", "train.eval_steps=1", f"train.num_workers={workers}"]
    quick += ["train.report_to=[]", "train.age_balance=0"]
    command = arguments(corpus, exp, trained_whisper, *quick)
    assert main(command) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "systems.train: " in line]
    manifest = tmp_path / "lost.jsonl"
    assert said == [f"systems.train: {manifest}: no audio file can be read, must be at least one"]
    assert not (exp / "final").exists()
