"""Configs: typed, strict, YAML 1.2, and every file under recipes/conf."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.recipe import Recipe
from systems.config import load_config, parse_yaml
from systems.contract import REGISTRY, system_class
from systems.whisper.config import WhisperConfig

CONF = Path(__file__).parents[2] / "recipes" / "conf"
# A config's file name begins with its system's, or with its models'.
PREFIXES = {"whisper": "whisper", "owsm": "owsm", "nemo": "nemo", "parakeet": "nemo"}


def system_of(path: Path) -> str | None:
    return next((PREFIXES[prefix] for prefix in PREFIXES if path.stem.startswith(prefix)), None)


def config_of(system: str, path: Path) -> Any:
    return load_config(system_class(system).config_type, path)


SYSTEM_CONFIGS = sorted(path for path in CONF.rglob("*.yaml") if system_of(path))
RECIPES = sorted(path for path in CONF.glob("*.yaml") if not system_of(path))


@pytest.mark.parametrize("path", SYSTEM_CONFIGS, ids=lambda path: str(path.relative_to(CONF)))
def test_every_system_config_loads(path):
    assert config_of(system_of(path), path).train.max_steps > 0


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_names_configs_that_load(path):
    recipe = load_config(Recipe, path)
    for system in REGISTRY:
        for config in (getattr(recipe, system), getattr(recipe, f"{system}_base")):
            assert not config or config_of(system, CONF.parents[1] / config)


@pytest.mark.parametrize(
    ("name", "batch", "accumulation"),
    [("small", 12, 3), ("medium", 8, 4), ("large_v3_turbo", 8, 4)],
)
def test_batch_sizes_and_their_reasons(name, batch, accumulation):
    path = CONF / f"whisper_{name}.yaml"
    train = load_config(WhisperConfig, path).train
    assert (train.batch_size, train.accumulation) == (batch, accumulation)
    lines = path.read_text(encoding="utf-8").splitlines()
    place = next(i for i, line in enumerate(lines) if "batch_size:" in line)
    assert "GB" in " ".join(lines[place - 4 : place])


def test_overrides_win_and_nest(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("train: {batch_size: 3, lora: {rank: 4}}\n", encoding="utf-8")
    config = load_config(WhisperConfig, path, ["train.lora.rank=8", "train.learning_rate=5e-5"])
    assert (config.train.batch_size, config.train.lora.rank) == (3, 8)
    assert config.train.learning_rate == 5e-5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batchsize=3", "unknown key 'batchsize'; known: accumulation, adapt"),
        ("trian.batch_size=3", "unknown key 'trian'; known: base, decode"),
        ("train.batch_size", "must be key=value"),
        (
            "train.batch_size=many",
            "override 'train.batch_size=many': train.batch_size is 'many', must be `int`",
        ),
        ("train.batch_size=0", "train.batch_size is 0, must be `int` >= 1"),
        ("train.learning_rate=-1", "train.learning_rate is -1, must be `float` > 0.0"),
        ("train.learning_rate=.nan", "train.learning_rate is nan, must be `float` > 0.0"),
        ("decode.no_speech_threshold=2", "is 2, must be `float` <= 1.0"),
        ("window=0", "window is 0, must be `float` > 0.0"),
        ("window=long", "window is 'long', must be one of: a number, auto"),
        (
            "train.adapt=encoder",
            "train.adapt is 'encoder', must be one of: decoder, encoder+decoder, full",
        ),
        (
            "train.report_to=[mlflow]",
            "train.report_to.0 is 'mlflow', must be one of: tensorboard, wandb",
        ),
        ("train.lora=8", "override 'train.lora=8': train.lora is 8, must be `object`"),
        ("train.lora=[", "override 'train.lora=[': not YAML"),
    ],
)
def test_a_typo_is_one_clear_error(override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_config(WhisperConfig, None, [override])


def test_a_fault_is_named_by_the_file_unless_an_override_made_it(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("train: {patience: -1}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"c\.yaml: train\.patience is -1, must be `int` >= 0"):
        load_config(WhisperConfig, path, ["train.batch_size=3"])
    path.write_bytes(b"train: \xff\n")
    with pytest.raises(ValueError, match=r"c\.yaml: not text in UTF-8"):
        load_config(WhisperConfig, path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("window: 4\ntrain: {seed: 1}\nwindow: 3\n", "line 3: window is there twice"),
        ("train:\n  seed: 1\n  seed: 1\n", "line 3: seed is there twice"),
        ("a\tb: [", "line 1: found character '\\t' that cannot start any token"),
        ("train: [\n", "line 2: expected the node content, but found '<stream end>'"),
    ],
)
def test_what_is_no_yaml_is_named_by_its_line(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"c.yaml: not YAML: {message}") + "$"):
        load_config(WhisperConfig, path)


def test_a_mapping_may_take_over_what_another_says():
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}", "c")["b"] == {"x": 3, "y": 2}


def test_yaml_1_2_scalars():
    values = ("1e-4", "2E3", "1.5e-3", ".5", "no", "on", "true", "-3", "2026-01-01", "~")
    parsed = [parse_yaml(value, "x") for value in values]
    assert parsed == [1e-4, 2e3, 1.5e-3, 0.5, "no", "on", True, -3, "2026-01-01", None]
    for text in ("0.9 1.1", "1e-4 of it", "true voices"):  # that only begin like something else
        assert parse_yaml(text, "x") == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_as_python_writes_it(value):
    parsed = parse_yaml(repr(value), "x")
    assert isinstance(parsed, float)
    assert parsed == value
