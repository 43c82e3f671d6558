"""Why the batch sizes of recipes/conf/whisper_*.yaml: memory of one training step, by its parts.

    python -m benchmarks.training_memory recipes/conf/whisper_small.yaml [key=value ...]

builds the published sizes with random weights, runs one clip of the config's window forward on
the CPU and counts what autograd keeps for the backward pass; that grows with the batch, the rest
(weights, and gradients and Adam's moments of what is trained) does not. One line a config:
`whisper_small: weights 0.97 GB, bf16 copies 0.08 GB, training state 0.08 GB, 0.07 GB a clip x 12
= 2.0 GB`. On top come what the allocator and CUDA take and, with gradient checkpointing, one
layer's activations, computed again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "openai/whisper-small": {"d_model": 768, "layers": (12, 12), "heads": 12},
    "openai/whisper-medium": {"d_model": 1024, "layers": (24, 24), "heads": 16},
    "openai/whisper-large-v3-turbo": {
        "d_model": 1280,
        "layers": (32, 4),
        "heads": 20,
        "mels": 128,
        "vocabulary": 51866,
    },
}
LABELS = 32  # tokens of a clip


def measure(config_path: Path, overrides: list[str]) -> str:
    """Return the line for one config."""
    import torch
    from transformers import WhisperConfig as HfConfig
    from transformers import WhisperForConditionalGeneration

    from systems.config import load_config
    from systems.whisper.config import WhisperConfig
    from systems.whisper.train import adapt

    config = load_config(WhisperConfig, config_path, overrides)
    size = SIZES[config.pretrained]
    width, (encoder, decoder), heads = size["d_model"], size["layers"], size["heads"]
    window = 30.0 if config.window == "auto" else config.window
    model = WhisperForConditionalGeneration(
        HfConfig(
            vocab_size=size.get("vocabulary", 51865),
            num_mel_bins=size.get("mels", 80),
            d_model=width,
            encoder_layers=encoder,
            decoder_layers=decoder,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
            max_source_positions=round(window * 50),
        )
    )
    weights = 4 * model.num_parameters()
    trained = adapt(model, config.train).train()
    if config.train.gradient_checkpointing:
        trained.gradient_checkpointing_enable()
    trainable = sum(p.numel() for p in trained.parameters() if p.requires_grad)
    fixed = {p.untyped_storage().data_ptr() for p in trained.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in fixed:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    features = torch.randn(1, size.get("mels", 80), round(window * 100))
    labels = torch.zeros(1, LABELS, dtype=torch.long)
    with (
        torch.autocast("cpu", torch.bfloat16, config.train.precision != "fp32"),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        loss = trained(input_features=features, labels=labels).loss
    assert loss.requires_grad
    # autocast keeps one bf16 copy of each weight for a step: counted once, not for each clip.
    cast = sum(n for n in kept.values() if n in {2 * p.numel() for p in trained.parameters()})
    clip = (sum(kept.values()) - cast) / 1e9
    state = 12 * trainable / 1e9  # gradient and two moments in float32
    batch = config.train.batch_size
    whole = weights / 1e9 + cast / 1e9 + state + clip * batch
    return (
        f"{config_path.stem}: weights {weights / 1e9:.2f} GB, bf16 copies {cast / 1e9:.2f} GB, "
        f"training state {state:.2f} GB, {clip:.2f} GB a clip x {batch} = {whole:.1f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    print(measure(arguments.config, arguments.overrides))


if __name__ == "__main__":
    main()
