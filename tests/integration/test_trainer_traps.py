"""Traps of transformers' trainer and Whisper classes that give wrong numbers without an error."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from systems.config import load_config
from systems.hf_trainer import AsrTrainer, training_arguments
from systems.sampler import EpochSampler
from systems.whisper.checkpoint import load_model
from systems.whisper.config import WhisperConfig
from systems.whisper.data import Collator, Examples, Tokens
from systems.whisper.train import DevWer, GreedySearch, adapt

ROOT = Path(__file__).parents[2]
QUIET = ["device=cpu", "window=2", "train.num_workers=0", "train.report_to=[]"]


def examples(manifest: Path, model, processor, **kwargs) -> Examples:
    tokens = Tokens(processor, model.generation_config, model.config.max_target_positions)
    return Examples(manifest, processor, tokens, **{"training": True, **kwargs})


def make_trainer(pretrained: Path, corpus, exp: Path, *overrides: str) -> AsrTrainer:
    plain = ["train.adapt=full", "train.spec_augment=false", "train.weight_decay=0"]
    config = load_config(WhisperConfig, None, [*QUIET, *plain, *overrides])
    model, processor = load_model(pretrained)
    arguments = training_arguments(config.train, exp, "cpu", "fp32")
    rows = examples(corpus.train, model, processor)
    return AsrTrainer(
        model=adapt(model, config.train),
        args=arguments,
        train_dataset=rows,
        eval_dataset=examples(corpus.dev, model, processor, training=False),
        data_collator=Collator(model.config.pad_token_id),
        compute_metrics=DevWer(processor),
        evaluate_batch=GreedySearch(model, config),
        sampler=EpochSampler(len(rows), config.train.seed),
    )


def first_step(pretrained: Path, corpus, exp: Path, batch: int, accumulation: int):
    """Return loss, gradient norm and weights after one step of plain gradient descent."""
    trainer = make_trainer(
        pretrained,
        corpus,
        exp,
        f"train.batch_size={batch}",
        f"train.accumulation={accumulation}",
        "train.max_steps=1",
        "train.eval_steps=1",
        "train.max_grad_norm=1000000",
    )
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.load_best_model_at_end = False
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda step: 1)
    trainer.train()
    entry = next(entry for entry in trainer.state.log_history if "grad_norm" in entry)
    return entry["loss"], entry["grad_norm"], trainer.model.state_dict()


def test_accumulation_does_not_scale_loss_or_gradient(tiny_whisper, tone_corpus, tmp_path):
    whole = first_step(tiny_whisper, tone_corpus, tmp_path / "a", batch=16, accumulation=1)
    parts = first_step(tiny_whisper, tone_corpus, tmp_path / "b", batch=4, accumulation=4)
    # Also exact in the labels: the four parts hold different numbers of them.
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert parts[1] == pytest.approx(whole[1], rel=1e-4)
    for name, weight in whole[2].items():
        torch.testing.assert_close(parts[2][name], weight, rtol=1e-4, atol=1e-6)


def test_processes_do_not_scale_loss_nor_double_dev_rows(tiny_whisper, tone_corpus, tmp_path):
    """Two processes with half the batch each are one with the whole; each dev row counts once."""
    script = tmp_path / "two.py"
    script.write_text(
        "import json, os, sys\n"
        "from pathlib import Path\n"
        f"sys.path[:0] = [{str(ROOT)!r}]\n"
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('traps', {__file__!r})\n"
        "traps = importlib.util.module_from_spec(spec); spec.loader.exec_module(traps)\n"
        "from types import SimpleNamespace\n"
        f"corpus = SimpleNamespace(train=Path({str(tone_corpus.train)!r}), "
        f"dev=Path({str(tone_corpus.dev)!r}))\n"
        f"trained = Path({str(tiny_whisper)!r})\n"
        "batch = 16 // int(os.environ.get('WORLD_SIZE', 1))\n"
        "exp = Path(sys.argv[1])\n"
        "loss, norm, _ = traps.first_step(trained, corpus, exp, batch, 1)\n"
        "trainer = traps.make_trainer(trained, corpus, exp, 'train.batch_size=4')\n"
        "seen = []\n"
        "score = trainer.compute_metrics\n"
        "trainer.compute_metrics = lambda p: seen.append(len(p.predictions)) or score(p)\n"
        "wer = trainer.evaluate()['eval_wer']\n"
        "if trainer.args.process_index == 0:\n"
        "    (exp / 'result.json').write_text(json.dumps([loss, norm, wer, seen[0]]))\n",
        encoding="utf-8",
    )
    results = []
    for name, launcher in (
        ("one", []),
        ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]),
    ):
        exp = tmp_path / name
        exp.mkdir()
        run = subprocess.run(
            [sys.executable, *launcher, str(script), str(exp)],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr[-3000:]
        results.append(json.loads((exp / "result.json").read_text()))
    one, two = results
    assert two[:2] == pytest.approx(one[:2], rel=1e-4)
    assert two[2] == pytest.approx(one[2])
    assert two[3] == one[3] == 21


def test_generation_keys_survive_a_config_that_marks_itself_derived(tiny_whisper, tmp_path):
    """``_from_model_config`` makes transformers drop lang_to_id and its like on load."""
    from transformers import WhisperForConditionalGeneration

    folder = tmp_path / "marked"
    model, processor = load_model(tiny_whisper)
    wanted = model.generation_config.to_dict()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    path = folder / "generation_config.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "_from_model_config": True}))
    theirs = WhisperForConditionalGeneration.from_pretrained(folder).generation_config
    if hasattr(theirs, "lang_to_id"):
        pytest.fail("transformers no longer drops the keys: generation.py can be simplified")
    repaired = load_model(folder)[0].generation_config
    for key in ("lang_to_id", "task_to_id", "no_timestamps_token_id", "alignment_heads"):
        assert getattr(repaired, key) == wanted[key]
    path.unlink()  # and without the file, from the tokenizer
    rebuilt = load_model(folder)[0].generation_config
    for key in ("lang_to_id", "task_to_id", "no_timestamps_token_id", "is_multilingual"):
        assert getattr(rebuilt, key) == wanted[key]
    assert rebuilt.begin_suppress_tokens == wanted["begin_suppress_tokens"]


def test_spec_augment_leaves_cached_features_alone_and_masks_speech(tiny_whisper, tone_corpus):
    model, processor = load_model(tiny_whisper)
    config = load_config(
        WhisperConfig, None, [*QUIET, "train.mask_time_prob=0.5", "train.mask_feature_prob=0.3"]
    ).train
    rows = examples(tone_corpus.train, model, processor, cache_mb=64)
    batch = [rows[i] for i in range(4)]
    before = copy.deepcopy([example["features"] for example in batch])
    collate = Collator(model.config.pad_token_id)
    inputs = collate(batch)
    clean = inputs["input_features"].clone()
    torch.manual_seed(0)
    adapt(model, config).train()(**inputs)
    changed = inputs["input_features"] != clean
    assert changed.any(), "SpecAugment did nothing"
    for i, example in enumerate(batch):
        assert rows[i] is example, "the features are not cached"
        assert (example["features"] == before[i]).all()
        torch.testing.assert_close(collate(batch)["input_features"][i], clean[i])
    # The masks in time lie where the audio is: whole columns beyond it stay as they were.
    columns = changed.all(dim=1)
    frames = torch.arange(clean.shape[2]) < torch.tensor([[e["frames"]] for e in batch])
    assert (columns & frames).any()
    assert not (columns & ~frames).any()
