"""Averaged models of all three systems: what they weigh, that they decode, that greedy is safe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import torch

from manifests import Utterance, read_manifest, read_nbest, write_rows
from systems import soup as soup_module
from systems.config import load_config
from systems.contract import system_class
from systems.decode import decode
from systems.soup import REPORT, Soup, main, soup

SYSTEMS = ("whisper", "owsm", "nemo")
BASICS = {"whisper": ("window=2",), "owsm": (), "nemo": ("text=raw",)}
ADAPTERS = {
    "whisper": ("train.adapt=decoder", "train.lora.rank=4"),
    "owsm": ("train.adapt=decoder", "train.lora.rank=4"),
    "nemo": ("train.adapt=adapter", "train.adapter.dim=4"),
}


class Kit(NamedTuple):
    """One system's trained checkpoint and what tests do with it."""

    name: str
    trained: Path
    dev: Path

    def config(self, *overrides: str) -> Any:
        return load_config(
            system_class(self.name).config_type,
            None,
            ["device=cpu", f"pretrained={self.trained}", *BASICS[self.name], *overrides],
        )

    def weights(self, folder: Path) -> dict[str, torch.Tensor]:
        """Return the weights that decoding would use, an adapter merged."""
        return dict(load(self.name, folder).state_dict())

    def varied(self, folder: Path, noise: float, seed: int) -> Path:
        """Write the trained model with noise on all its weights."""
        torch.manual_seed(seed)
        if self.name == "whisper":
            from systems.whisper.checkpoint import load_model
            from systems.whisper.train import save

            model, processor = load_model(self.trained)
            shake(model, noise)
            folder.mkdir(parents=True)
            save(model, processor, self.config("train.adapt=full"), folder, folder)
        elif self.name == "owsm":
            from systems.owsm.checkpoint import load_owsm
            from systems.owsm.train import Trained, save

            owsm = load_owsm(self.trained)
            shake(owsm.model, noise)
            save(Trained(owsm.model), owsm, self.config("train.adapt=full"), folder, folder)
        else:
            from systems.nemo.checkpoint import load_model
            from systems.nemo.train import save

            model = load_model(self.trained)
            shake(model, noise)
            folder.mkdir(parents=True)
            save(model, self.config("train.adapt=full"), folder, folder)
        return folder

    def adapted(self, folder: Path, seed: int) -> Path:
        """Write an adapter of the trained model that adds noise."""
        torch.manual_seed(seed)
        config = self.config(*ADAPTERS[self.name])
        if self.name == "whisper":
            from systems.whisper.checkpoint import load_model
            from systems.whisper.train import adapt, save

            model, processor = load_model(self.trained)
            trained = adapt(model, config.train)
            shake(trained, 0.1, "lora_B")
            folder.mkdir(parents=True)
            save(trained, processor, config, folder, folder)
        elif self.name == "owsm":
            from systems.owsm.checkpoint import load_owsm
            from systems.owsm.train import Trained, adapt, save

            owsm = load_owsm(self.trained)
            lora = adapt(owsm, config.train)
            shake(lora, 0.1, "lora_B")
            save(Trained(lora), owsm, config, folder, folder)
        else:
            from systems.nemo.checkpoint import add_adapter, load_model
            from systems.nemo.train import save

            model = load_model(self.trained, adapters=True)
            add_adapter(model, config.train.adapter)
            shake(model, 0.1, "adapter_layer")
            folder.mkdir(parents=True)
            save(model, config, folder, folder)
        return folder

    def heard(self, checkpoint: Path, out: Path) -> list[Any]:
        decode(self.name, self.config(), str(checkpoint), self.dev, out)
        return list(read_nbest(out))


def shake(model: torch.nn.Module, noise: float, part: str = "") -> None:
    """Add noise in proportion to each weight's size, or of ``noise`` itself to zeros."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if part in name:
                size = weight.abs().mean() if weight.abs().sum() else 1.0
                weight += noise * size * torch.randn_like(weight)


def load(name: str, folder: Path) -> torch.nn.Module:
    if name == "whisper":
        from systems.whisper.checkpoint import load_model

        return load_model(folder)[0]
    if name == "owsm":
        from systems.owsm.checkpoint import load_owsm

        return load_owsm(folder).model
    from systems.nemo.checkpoint import load_model as load_nemo

    return load_nemo(folder)


@pytest.fixture(scope="module", params=SYSTEMS)
def kit(request, tone_corpus) -> Kit:
    return Kit(request.param, request.getfixturevalue(f"trained_{request.param}"), tone_corpus.dev)


@pytest.fixture(scope="module")
def variants(kit, tmp_path_factory) -> list[Path]:
    """Two of about the trained one's quality, and one that has gone astray."""
    folder = tmp_path_factory.mktemp(f"variants-{kit.name}")
    return [
        kit.varied(folder / f"{number}" / "final", noise, number)
        for number, noise in enumerate((0.2, 0.2, 2.0))
    ]


def close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def mean(*models: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: torch.stack([one[name].double() for one in models]).mean(0).to(weight.dtype)
        for name, weight in models[0].items()
    }


def test_a_soup_of_a_checkpoint_with_itself_decodes_the_same(kit, tmp_path):
    copy = tmp_path / "copy" / "final"
    shutil.copytree(kit.trained, copy)
    out = tmp_path / "soup"
    found = soup(kit.name, kit.config(), [str(kit.trained), str(copy)], out)
    assert found.kept == [str(kit.trained), str(copy)]
    before, after = kit.weights(kit.trained), kit.weights(out)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert kit.heard(out, tmp_path / "a.jsonl") == kit.heard(kit.trained, tmp_path / "b.jsonl")
    assert not list(tmp_path.glob("*.work")) + list(tmp_path.glob("*.part"))


def test_a_soup_of_two_is_their_mean(kit, variants, tmp_path):
    soup(kit.name, kit.config(), [str(one) for one in variants[:2]], tmp_path / "soup")
    each = [kit.weights(one) for one in variants[:2]]
    close(kit.weights(tmp_path / "soup"), mean(*each))
    assert any(not torch.equal(each[0][name], weight) for name, weight in each[1].items())


def test_a_soup_of_adapters_adds_the_mean_of_what_they_add(kit, tmp_path):
    """Not what the means of their factors would add."""
    adapters = [kit.adapted(tmp_path / str(number) / "final", number) for number in range(3)]
    out = tmp_path / "soup"
    soup(kit.name, kit.config(), [str(one) for one in adapters], out)
    close(kit.weights(out), mean(*[kit.weights(one) for one in adapters]))
    assert len(kit.heard(out, tmp_path / "h.jsonl")) == len(list(read_manifest(kit.dev)))
    if kit.name == "whisper":  # an adapter still, of the same base
        named = json.loads((out / "adapter_config.json").read_text())
        assert (named["r"], named["lora_alpha"]) == (12, 12)
        assert not (out / "model.safetensors").exists()
        again = [str(out), str(adapters[0])]
        soup(kit.name, kit.config(), again, tmp_path / "again")
        close(kit.weights(tmp_path / "again"), mean(kit.weights(out), kit.weights(adapters[0])))
    if kit.name == "nemo":  # its adapter alone, too, for the base has not changed
        alone = tmp_path / "alone"
        alone.mkdir()
        for name in ("adapter.pt", "system.json"):
            shutil.copy(out / name, alone)
        close(kit.weights(alone), kit.weights(out))


def test_a_greedy_soup_is_never_worse_than_the_best_on_dev(kit, variants, tmp_path):
    best = [str(kit.trained), *map(str, variants)]
    found = soup(kit.name, kit.config(), best[::-1], tmp_path / "soup", dev=kit.dev)
    alone = {one.checkpoint: one.errors for one in found.ingredients}
    assert found.errors <= min(alone.values())
    assert str(variants[2]) not in found.kept
    assert alone[str(variants[2])] == max(alone.values()) > found.errors
    tried = [one.errors for one in found.ingredients]
    assert tried == sorted(tried)
    assert msgspec.json.decode((tmp_path / "soup" / REPORT).read_bytes(), type=Soup) == found
    # What is said of the result is true of the checkpoint that lies there.
    rows = kit.heard(tmp_path / "soup", tmp_path / "h.jsonl")
    from scoring.metric import count_word_errors

    references = [row.text for row in read_manifest(kit.dev)]
    counts = count_word_errors(references, [row.best.text for row in rows])
    assert (counts.errors, counts.words) == (found.errors, found.words)
    assert not (tmp_path / "soup.work").exists()


@pytest.mark.parametrize(
    ("name", "adapt"), [("whisper", "adapter"), ("whisper", "full"), ("nemo", "adapter")]
)
def test_checkpoints_of_one_training_are_ingredients(name, adapt, tone_corpus, tmp_path, request):
    """They hold what is trained alone, and take the rest from the training's final."""
    kit = Kit(name, request.getfixturevalue(f"trained_{name}"), tone_corpus.dev)
    adapted = ADAPTERS[name] if adapt == "adapter" else ("train.adapt=full",)
    steps = ("train.max_steps=4", "train.eval_steps=2", "train.max_eval_utterances=4",
             "train.num_workers=0", "train.report_to=[]", "train.learning_rate=1e-3")  # fmt: skip
    config = kit.config(*adapted, *steps)
    final = system_class(name)(config).train(tone_corpus.train, kit.dev, tmp_path / "exp")
    pattern = "checkpoint-*" if name == "whisper" else "*.ckpt"
    found = sorted((tmp_path / "exp" / "checkpoints").glob(pattern))
    each = [kit.weights(one) for one in (*found, final)]
    assert len(found) == 2
    # Final is the best of them, and they differ.
    same = [all(torch.equal(one[key], each[-1][key]) for key in one) for one in each[:-1]]
    assert any(same)
    soup(name, config, [str(one) for one in found], tmp_path / "soup")
    close(kit.weights(tmp_path / "soup"), mean(*each[:-1]))
    assert len(kit.heard(tmp_path / "soup", tmp_path / "h.jsonl")) == 21


@pytest.fixture(scope="module")
def whisper(trained_whisper, tone_corpus) -> Kit:
    return Kit("whisper", trained_whisper, tone_corpus.dev)


def test_a_killed_soup_goes_on_where_it_was(whisper, tmp_path, monkeypatch):
    checkpoints = [str(whisper.varied(tmp_path / str(n), 0.02, n)) for n in range(2)]
    calls: list[str] = []

    def counting(name: str, config: Any, checkpoint: str, *rest: Any, **more: Any) -> Any:
        calls.append(checkpoint)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return decode(name, config, checkpoint, *rest, **more)

    monkeypatch.setattr(soup_module, "decode", counting)
    out = tmp_path / "soup"
    with pytest.raises(KeyboardInterrupt):
        soup("whisper", whisper.config(), checkpoints, out, dev=whisper.dev)
    assert not out.exists()
    with pytest.raises(ValueError, match=r"was begun with other settings"):
        soup("whisper", whisper.config("decode.beams=2"), checkpoints, out, dev=whisper.dev)
    soup("whisper", whisper.config(), checkpoints, out, dev=whisper.dev)
    assert calls == [*checkpoints, checkpoints[1], str(tmp_path / "soup.work" / calls[-1][-3:])]
    assert (out / REPORT).exists()


def test_nothing_is_chosen_on_a_dev_set_of_which_nothing_is_heard(whisper, tmp_path):
    checkpoints = [str(whisper.trained), str(whisper.varied(tmp_path / "varied", 0.02, 1))]
    rows = [Utterance(utt_id="a", audio_filepath="a.wav", duration=1.0, text="home")]
    write_rows(tmp_path / "dev.jsonl", rows)
    for _ in range(2):  # nor when it is called again
        with pytest.raises(ValueError, match=r"dev\.jsonl: none of 1 utterances could be decoded"):
            soup(
                "whisper", whisper.config(), checkpoints, tmp_path / "o", dev=tmp_path / "dev.jsonl"
            )
    assert not (tmp_path / "o").exists()


def test_what_does_not_fit_together_is_refused_in_one_line(
    whisper, tiny_whisper, trained_owsm, tiny_owsm_ctc, trained_nemo, tmp_path, capsys
):
    from recipes.tiny_nemo import build as build_nemo
    from recipes.tiny_whisper import build

    other = tmp_path / "other"
    build(["a longer text of other words"] * 9, other, window=2, d_model=64, layers=2, heads=4)
    small = tmp_path / "small"
    shutil.copytree(tiny_whisper, small)
    wide = build(["a I goed home tooths two mouses saw"] * 2, tmp_path / "wide", window=2,
                 d_model=32, layers=2, heads=4)  # fmt: skip
    adapter = whisper.adapted(tmp_path / "adapter", 1)
    moved = whisper.varied(tmp_path / "moved", 0.01, 1)
    elsewhere = whisper._replace(trained=moved).adapted(tmp_path / "elsewhere", 2)
    vocabulary = build_nemo(["xyz zyx"] * 40, tmp_path / "nemo", d_model=48, layers=2, vocabulary=8)
    (tmp_path / "c.yaml").write_text("window: 2\n")
    here = tmp_path / "exists"
    here.mkdir()

    def complaint(name: str, *checkpoints: Path, out: Path = tmp_path / "out") -> str:
        named = [str(one) for one in checkpoints]
        config = str(tmp_path / "c.yaml")
        command = [name, "--config", config, "--checkpoints", *named, "--out", str(out)]
        assert main([*command, "device=cpu"]) == 1
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("systems.soup")]
        return line

    assert "exists already" in complaint("whisper", whisper.trained, moved, out=here)
    assert "two or more different" in complaint("whisper", moved, here / ".." / "moved")
    assert "two or more different" in complaint("whisper", moved)
    assert "its vocabulary is not that of" in complaint("whisper", whisper.trained, other)
    assert "weights are of other size" in complaint("whisper", tiny_whisper, wide)
    assert "is a whole model and others are adapters" in complaint("whisper", adapter, moved)
    assert "is an adapter of" in complaint("whisper", adapter, elsewhere)
    assert "no such folder" in complaint("whisper", moved, tmp_path / "none")
    assert "weights are" in complaint("owsm", trained_owsm, tiny_owsm_ctc)
    assert "its vocabulary is not that of" in complaint("nemo", trained_nemo, vocabulary)
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(SystemExit, match="2"):
        main(["whisper", "--config", "c", "--checkpoints", "a", "b", "--out", "o", "--greedy"])
