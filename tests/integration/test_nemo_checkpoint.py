"""Loading NeMo models by every name, offline; adapters that come back; losses that stay right."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recipes.tiny_nemo import build
from systems.nemo.checkpoint import (
    ADAPTER,
    MODEL,
    adapter_weights,
    add_adapter,
    load_model,
    load_strictly,
)
from systems.nemo.config import AdapterConfig
from systems.nemo.tdt_loss import TdtLoss, right_loss
from systems.record import write_record

WORDS = ["a I goed home", "tooths two mouses saw"] * 4
SIZES = {"d_model": 32, "layers": 1, "vocabulary": 32}


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained TDT-CTC of the published layout."""
    return build(WORDS, tmp_path_factory.mktemp("hybrid") / "init", kind="hybrid", **SIZES)


def output(model) -> torch.Tensor:
    signal = torch.sin(torch.arange(16000) / 7)[None]
    with torch.no_grad():
        return model.forward(input_signal=signal, input_signal_length=torch.tensor([16000]))[0]


def cached(home: Path, file: Path, name: str) -> None:
    """Put a `.nemo` file where a download of nvidia/``name`` would have put it."""
    repo = home / "hub" / f"models--nvidia--{name}"
    (repo / "snapshots" / "abc").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc", encoding="utf-8")
    shutil.copy(file, repo / "snapshots" / "abc" / f"{name}.nemo")


def test_hub_id_name_file_and_folder_are_one_model(tiny_nemo, tmp_path, monkeypatch):
    import huggingface_hub.constants

    cached(tmp_path, tiny_nemo / MODEL, "parakeet-ctc-0.6b")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    wanted = output(load_model(tiny_nemo))
    places = ["nvidia/parakeet-ctc-0.6b", "parakeet-ctc-0.6b", tiny_nemo / MODEL]
    # huggingface_hub binds the cache's place as a default argument, so ask another process.
    code = (
        "import sys, torch\n"
        "from systems.nemo.checkpoint import nemo_file\n"
        "print(nemo_file(sys.argv[1]))\n"
    )
    for place in places:
        run = subprocess.run(
            [sys.executable, "-c", code, str(place)],
            capture_output=True,
            text=True,
            env={**_environment(), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        )
        assert run.returncode == 0, run.stderr
        assert torch.equal(output(load_model(run.stdout.strip())), wanted)


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)


def test_a_missing_model_says_what_to_download_and_where_to_put_it(tmp_path):
    code = (
        "from systems.nemo.checkpoint import nemo_file\n"
        "try:\n    nemo_file('nvidia/parakeet-ctc-1.1b')\n"
        "except ValueError as error:\n    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**_environment(), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
    )
    assert "run `hf download nvidia/parakeet-ctc-1.1b parakeet-ctc-1.1b.nemo" in run.stdout
    assert str(tmp_path) in run.stdout


def test_what_is_no_model_is_said_in_one_line(tmp_path):
    (tmp_path / "torn.nemo").write_bytes(b"half")
    for place, message in (
        (tmp_path / "torn.nemo", "not a whole .nemo archive"),
        (tmp_path / "none.nemo", "no such file or folder"),
        (tmp_path / "none", "no such file or folder"),
    ):
        with pytest.raises(ValueError, match=message):
            load_model(place)


def test_import_is_silent_and_asks_no_network():
    code = (
        "import socket\n"
        "def refuse(*args): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "from systems.nemo.quiet import import_nemo\n"
        "import_nemo()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_import_loads_no_compiler_and_leaves_torch_compile_as_it_was():
    code = (
        "import sys, lightning.pytorch, pytorch_lightning, torch\n"
        "before = torch.compile\n"
        "from systems.nemo.quiet import import_nemo\n"
        "assert import_nemo() is import_nemo()\n"
        "assert torch.compile is before\n"
        "assert 'torch._inductor.compile_fx' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_loaded_models_are_in_eval_mode_to_the_last_module(tiny_nemo):
    """NeMo restores in training mode, where a forward changes the batch norms for good."""
    model = load_model(tiny_nemo)
    assert not any(module.training for module in model.modules())
    assert torch.equal(output(model), output(model))


def test_a_new_adapter_changes_nothing_and_a_saved_one_comes_back(tiny_nemo, tmp_path):
    model = load_model(tiny_nemo, adapters=True)
    add_adapter(model, AdapterConfig(dim=4))
    model.eval()
    assert torch.equal(output(model), output(load_model(tiny_nemo)))
    for weight in adapter_weights(model).values():
        weight += 0.1
    wanted = output(model)
    torch.save(adapter_weights(model), tmp_path / ADAPTER)
    config = {"train": {"adapter": {"dim": 4}}}
    write_record(tmp_path, "nemo", str(tiny_nemo), config, tmp_path)
    assert torch.equal(output(load_model(tmp_path)), wanted)
    model.save_to(str(tmp_path / MODEL))
    assert torch.equal(output(load_model(tmp_path)), wanted)


def test_weights_that_do_not_fit_are_refused(tiny_nemo):
    model = load_model(tiny_nemo)
    with pytest.raises(ValueError, match="1 of 1 weights do not fit"):
        load_strictly(model, {"encoder.no.such": torch.zeros(1)}, Path("adapter.pt"))
    with pytest.raises(ValueError, match="0 of 0 weights"):
        load_strictly(model, {}, Path("adapter.pt"))


def lattice(seed: int, durations: list[int]):
    generator = torch.Generator().manual_seed(seed)
    acts = torch.randn(3, 7, 4, 6 + len(durations), generator=generator)
    labels = torch.randint(0, 5, (3, 3), generator=generator)
    return acts, labels, torch.tensor([7, 5, 6]), torch.tensor([3, 2, 0])


@pytest.mark.parametrize("durations", [[0, 1, 2, 3, 4], [1, 2], [0, 1]])
@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_tdt_loss_is_nemos_reference(durations, sigma, monkeypatch):
    from nemo.collections.asr.losses.rnnt_pytorch import TDTLossPytorch

    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)  # the reference knows no CPU
    acts, labels, frames, sizes = lattice(1, durations)
    results = []
    for loss in (
        TDTLossPytorch(blank=5, durations=durations, reduction="none", sigma=sigma),
        TdtLoss(5, durations, sigma),
    ):
        given = acts.clone().requires_grad_()
        forward = loss.forward.__wrapped__ if hasattr(loss.forward, "__wrapped__") else None
        value = (
            loss(given, labels, frames, sizes)
            if forward is None
            else loss(acts=given, labels=labels, act_lens=frames, label_lens=sizes)
        )
        value.sum().backward()
        results.append((value.detach(), given.grad))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=0, atol=1e-5)


def test_a_new_vocabulary_keeps_the_tdt_loss(hybrid, tmp_path):
    """NeMo's change_vocabulary leaves a plain transducer's loss with a duration as its blank."""
    from systems.nemo.tokenizer import train_tokenizer

    model = load_model(hybrid)
    folder = train_tokenizer(WORDS, tmp_path / "t", 28)
    model.change_vocabulary(new_tokenizer_dir=str(folder), new_tokenizer_type="bpe")
    assert type(model.loss._loss).__name__ != "TDTLossNumba"  # the trap, as it is in NeMo
    right_loss(model)
    assert isinstance(model.loss._loss, TdtLoss)
    assert model.loss._loss.blank == model.tokenizer.vocab_size
    assert model.joint.loss is model.loss
    model.save_to(str(tmp_path / MODEL))
    again = load_model(tmp_path / MODEL)
    assert again.loss._loss.blank == model.tokenizer.vocab_size


def test_texts_with_trailing_spaces_teach_no_empty_token(tmp_path):
    from systems.nemo.tokenizer import train_tokenizer

    folder = train_tokenizer(["a cat ", "a cat  sat "] * 3, tmp_path / "t", 24)
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    assert model.encode("cat ") == model.encode("cat")
    with pytest.raises(ValueError, match="no text to learn a tokenizer from"):
        train_tokenizer([" "], tmp_path / "u", 24)
