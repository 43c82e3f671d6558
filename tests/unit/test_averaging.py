"""The mean of weights: exact where models agree, of products where adapters are products."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from systems.averaging import Mean
from systems.whisper.average import _plain_lora, mean_adapter


def mean_of(*models):
    mean = Mean()
    for number, weights in enumerate(models):
        mean.add(weights, f"model {number}")
    return mean


@settings(max_examples=30)
@given(count=st.integers(1, 7), seed=st.integers(0, 99))
def test_mean_of_one_model_is_that_model_bit_for_bit(count, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = {"a": torch.randn(5, 3, generator=generator), "half": torch.randn(4).bfloat16()}
    mean = mean_of(*[weights] * count)
    assert all(torch.equal(mean.result()[name], weight) for name, weight in weights.items())
    assert mean.varied == set()


def test_mean_is_that_of_float64_and_keeps_precision_and_order_does_not_matter():
    models = [{"a": torch.randn(50), "h": torch.randn(50).bfloat16()} for _ in range(5)]
    found = mean_of(*models)
    exact = torch.stack([one["a"].double() for one in models]).mean(0)
    torch.testing.assert_close(found.result()["a"].double(), exact, rtol=0, atol=1e-6)
    # Summed in bfloat16, the error would be that of several roundings.
    half = torch.stack([one["h"].double() for one in models]).mean(0).bfloat16()
    torch.testing.assert_close(found.result()["h"], half, rtol=0.004, atol=0.004)
    assert found.result()["h"].dtype == torch.bfloat16
    torch.testing.assert_close(mean_of(*models[::-1]).result()["a"], found.result()["a"])
    assert found.varied == {"a", "h"}


def test_what_was_given_is_not_changed():
    first = {"a": torch.ones(2)}
    mean = mean_of(first, {"a": torch.zeros(2)})
    first["a"] += 7
    assert mean.result()["a"].tolist() == [0.5, 0.5]
    assert mean.result()["a"].tolist() == [0.5, 0.5]


def test_statistics_are_averaged_counters_and_other_whole_numbers_are_not():
    one, other = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    one(torch.randn(8, 2))
    for _ in range(3):
        other(torch.randn(8, 2) + 4)
    found = mean_of(one.state_dict(), other.state_dict()).result()
    torch.testing.assert_close(found["running_mean"], (one.running_mean + other.running_mean) / 2)
    torch.testing.assert_close(found["running_var"], (one.running_var + other.running_var) / 2)
    assert int(found["num_batches_tracked"]) == 3
    ids = {"ids": torch.arange(3)}
    assert torch.equal(mean_of(ids, ids).result()["ids"], ids["ids"])
    with pytest.raises(ValueError, match=r"model 1: ids is not what it is in model 0"):
        mean_of(ids, {"ids": torch.arange(3) + 1})


def test_models_of_other_shape_are_refused():
    first = {"a": torch.zeros(2), "b": torch.zeros(3)}
    for other, problem in (
        ({"a": torch.zeros(2)}, r"model 1: 1 weights are missing \(b\), must be exactly"),
        ({**first, "c": torch.zeros(1)}, r"unknown \(c\)"),
        ({"a": torch.zeros(2), "b": torch.zeros(4)}, r"of other size \(b\)"),
    ):
        with pytest.raises(ValueError, match=problem):
            mean_of(first, other)
    with pytest.raises(ValueError, match=r"no models to average"):
        Mean().result()


def lora(rank: int, seed: int, name: str = "q", size: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{name}.lora_A.weight": torch.randn(rank, 4, generator=generator),
        f"{name}.lora_B.weight": torch.randn(size, rank, generator=generator),
    }


def test_mean_of_adapters_is_that_of_what_they_add():
    adapters = [(lora(2, 1), "x", 0.5), (lora(3, 2), "y", 2.0), (lora(2, 3), "z", 1.0)]
    found = mean_adapter(adapters)
    added = [scale * one["q.lora_B.weight"] @ one["q.lora_A.weight"] for one, _, scale in adapters]
    torch.testing.assert_close(
        found["q.lora_B.weight"] @ found["q.lora_A.weight"], torch.stack(added).mean(0)
    )
    assert found["q.lora_A.weight"].shape == (7, 4)
    for wrong in (lora(2, 1, name="v"), lora(2, 1, size=5)):
        with pytest.raises(ValueError, match=r"y: adapts other weights or sizes"):
            mean_adapter([(lora(2, 1), "x", 1.0), (wrong, "y", 1.0)])
    with pytest.raises(ValueError, match=r"x: holds more than LoRA's factors"):
        mean_adapter([({**lora(2, 1), "head.weight": torch.zeros(1)}, "x", 1.0)])


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"use_dora": True}, "use_dora is True"),
        ({"rank_pattern": {"q": 4}}, "rank_pattern is"),
        ({"modules_to_save": ["proj"]}, "modules_to_save is"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    ],
)
def test_only_plain_lora_has_this_mean(tmp_path, changed, problem):
    plain = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "rank_pattern": {}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(plain))
    assert _plain_lora(tmp_path)[1] == 2.0
    (tmp_path / "adapter_config.json").write_text(json.dumps({**plain, "use_rslora": True}))
    assert _plain_lora(tmp_path)[1] == 4.0
    (tmp_path / "adapter_config.json").write_text(json.dumps(plain | changed))
    with pytest.raises(ValueError, match=problem):
        _plain_lora(tmp_path)
