"""What the configuration of a small OWSM has of its own, key for key as in the published ones."""

from __future__ import annotations

from typing import Any

from manifests.audio import SAMPLE_RATE
from systems.owsm.toolkit import Family


def times(window: float) -> list[str]:
    """Return the tokens of times within the window."""
    return [f"<{0.02 * step:.2f}>" for step in range(round(window / 0.02) + 1)]


def config_of(
    tokens: list[str],
    window: float,
    family: Family,
    width: int,
    blocks: int,
    units: int,
    mels: int,
    subsampling: int,
) -> dict[str, Any]:
    """Return what differs from ESPnet's defaults, key for key as in the published models."""
    encoder = {
        "output_size": width,
        "attention_heads": 4,
        "attention_layer_type": "selfattn",
        "pos_enc_layer_type": "abs_pos",
        "rel_pos_type": "latest",
        "cgmlp_linear_units": units * width,
        "cgmlp_conv_kernel": 15,
        "use_linear_after_conv": False,
        "gate_activation": "identity",
        "num_blocks": blocks,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        "attention_dropout_rate": 0.0,
        "input_layer": {4: "conv2d", 8: "conv2d8"}[subsampling],
        "layer_drop_rate": 0.0,
        "linear_units": units * width,
        "positionwise_layer_type": "linear",
        "use_ffn": True,
        "macaron_ffn": True,
        "merge_conv_kernel": 15,
    }
    preprocessor: dict[str, Any] = {
        "fs": SAMPLE_RATE,
        "na_symbol": "<na>",
        "speech_length": window,
        "speech_init_silence": window,
        "text_prev_apply_prob": 0.5,
        "text_prev_name": "text_prev",
        "text_ctc_name": "text_ctc",
    }
    common: dict[str, Any] = {
        "token_list": tokens,
        "token_type": "bpe",
        "frontend": "default",
        "frontend_conf": {
            "n_fft": 512,
            "win_length": 400,
            "hop_length": 160,
            "n_mels": mels,
            "fs": SAMPLE_RATE,
        },
        "specaug": "specaug",
        "specaug_conf": {
            "apply_time_warp": False,
            "apply_freq_mask": True,
            "freq_mask_width_range": [0, mels // 5],
            "num_freq_mask": 1,
            "apply_time_mask": True,
            "time_mask_width_ratio_range": [0.0, 0.03],
            "num_time_mask": 2,
        },
        "normalize": "global_mvn",
    }
    if family == "ctc":
        return common | {
            "encoder": "e_branchformer_ctc",
            "encoder_conf": encoder
            | {
                "interctc_layer_idx": [max(1, blocks // 2)],
                "interctc_use_conditioning": True,
                "use_cross_attention": [block % 2 == 1 for block in range(blocks)],
            },
            "promptencoder": "transformer",
            "promptencoder_conf": {
                "output_size": width,
                "attention_heads": 4,
                "linear_units": units * width,
                "num_blocks": 1,
            },
            "model": "espnet_ctc",
            "model_conf": {
                "interctc_weight": 0.5,
                "ctc_asr_only": [True, True],
                "sym_na": "<na>",
            },
            "preprocessor": "s2t_ctc",
            "preprocessor_conf": preprocessor
            | {"nolang_symbol": "<nolang>", "lang_apply_prob": 0.5},
        }
    return common | {
        "init": "xavier_uniform",  # ESPnet's own learns later
        "encoder": "e_branchformer",
        "encoder_conf": encoder,
        "decoder": "transformer",
        "decoder_conf": {
            "attention_heads": 4,
            "linear_units": units * width,
            "dropout_rate": 0.0,
            "positional_dropout_rate": 0.0,
            "self_attention_dropout_rate": 0.0,
            "src_attention_dropout_rate": 0.0,
        },
        "model_conf": {
            "ctc_weight": 0.5,  # published: 0.3; from scratch CTC shows the decoder where to listen
            "lsm_weight": 0.1,
            "length_normalized_loss": False,
            "sym_na": "<na>",
        },
        "preprocessor": "s2t",
        "preprocessor_conf": preprocessor
        | {
            "speech_resolution": 0.02,
            "time_apply_prob": 0.5,
            "notime_symbol": "<notimestamps>",
            "first_time_symbol": times(window)[0],
            "last_time_symbol": times(window)[-1],
        },
    }
