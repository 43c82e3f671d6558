"""A small, untrained NeMo Conformer in the published layout, for runs without a network.

The classes, the config's keys and the `.nemo` archive are those of NVIDIA's
stt_en_conformer_ctc_*, parakeet-ctc-*, parakeet-tdt-* and parakeet-tdt_ctc-*; only the sizes and
the SentencePiece vocabulary (learned from the given texts) are small, so what loads, trains and
decodes this model does the same with the published ones.

    python -m recipes.tiny_nemo --text train.jsonl --out exp/mini/nemo/init --seed 1

reads the `text` of manifests (`.jsonl`) or plain text files, one sentence to a line, and writes
`model.nemo` to --out.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from manifests.jsonl import part_path
from manifests.meta import write_meta
from recipes.texts import read_texts

log = logging.getLogger(__name__)

Kind = Literal["ctc", "tdt", "rnnt", "hybrid"]
DURATIONS = [0, 1, 2, 3, 4]  # frames that a TDT token may last, as in parakeet-tdt-*


def build(
    texts: Iterable[str],
    out: Path,
    *,
    kind: Kind = "ctc",
    d_model: int = 96,
    layers: int = 4,
    heads: int = 4,
    vocabulary: int = 96,
    subsampling: Literal[4, 8] = 4,
    channels: int = 64,
    seed: int = 1,
) -> Path:
    """Write a randomly initialised model to ``out/model.nemo``; return ``out``.

    ``vocabulary`` counts SentencePiece tokens, <unk> among them; fewer when the texts have not
    got so many. A frame lasts 10 ms x ``subsampling``, made by convolutions of ``channels``. A
    folder ``out`` that exists is replaced.
    """
    import torch
    from omegaconf import OmegaConf

    from systems.nemo.checkpoint import model_classes
    from systems.nemo.tokenizer import train_tokenizer

    classes = model_classes()
    cls = {"ctc": classes.ctc, "hybrid": classes.hybrid}.get(kind, classes.transducer)
    part = part_path(out)  # so that a folder that exists is whole
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        folder = train_tokenizer(texts, Path(name), vocabulary)
        config = model_config(kind, d_model, layers, heads, subsampling, channels)
        config["tokenizer"] = {"dir": str(folder), "type": "bpe"}
        torch.manual_seed(seed)
        model = cls(cfg=OmegaConf.create(config))
        model.save_to(str(part / "model.nemo"))
    parameters = sum(weight.numel() for weight in model.parameters())
    write_meta(part / "model.json", {"seed": seed, "parameters": parameters})
    shutil.rmtree(out, ignore_errors=True)
    part.replace(out)
    return out


def model_config(
    kind: Kind, d_model: int, layers: int, heads: int, subsampling: int, channels: int
) -> dict[str, Any]:
    """Return the published keys of a (Fast)Conformer with these sizes, without the tokenizer."""
    asr = "nemo.collections.asr.modules"
    config: dict[str, Any] = {
        "sample_rate": 16000,
        "log_prediction": False,
        "skip_nan_grad": False,
        # Emptied, as in published archives; NeMo's transcribe() reads validation_ds.
        **{name: _no_data(name == "train_ds") for name in ("train_ds", "validation_ds", "test_ds")},
        "preprocessor": {
            "_target_": f"{asr}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000,
            "normalize": "per_feature",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": 80,
            "n_fft": 512,
            "log": True,
            "frame_splicing": 1,
            "dither": 1e-5,
            "pad_to": 0,
            "pad_value": 0.0,
        },
        "spec_augment": {
            "_target_": f"{asr}.SpectrogramAugmentation",
            # Milder than the published 2 x 27 and 5 x 0.05: this model is small.
            "freq_masks": 2,
            "time_masks": 2,
            "freq_width": 16,
            "time_width": 0.05,
        },
        "encoder": {
            "_target_": f"{asr}.ConformerEncoder",
            "feat_in": 80,
            "feat_out": -1,
            "n_layers": layers,
            "d_model": d_model,
            "subsampling": "dw_striding" if subsampling == 8 else "striding",
            "subsampling_factor": subsampling,
            "subsampling_conv_channels": channels,
            "causal_downsampling": False,
            "ff_expansion_factor": 4,
            "self_attention_model": "rel_pos",
            "n_heads": heads,
            "att_context_size": [-1, -1],
            "xscaling": True,
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": 9 if subsampling == 8 else 31,
            "conv_norm_type": "batch_norm",
            "dropout": 0.1,
            "dropout_pre_encoder": 0.1,
            "dropout_emb": 0.0,
            "dropout_att": 0.1,
        },
        "optim": {"name": "adamw", "lr": 1e-3},
    }
    if kind == "ctc":
        config["decoder"] = _ctc_decoder()
        config["interctc"] = {"loss_weights": [], "apply_at_layers": []}
        config["ctc_reduction"] = "mean_batch"
        return config
    config |= _transducer(kind, d_model)
    if kind == "hybrid":
        config["aux_ctc"] = {
            "ctc_loss_weight": 0.3,
            "use_cer": False,
            "ctc_reduction": "mean_batch",
            "decoder": _ctc_decoder(),
            "decoding": {"strategy": "greedy_batch"},
        }
        config["interctc"] = {"loss_weights": [], "apply_at_layers": []}
    return config


def _no_data(shuffle: bool) -> dict[str, Any]:
    return {"manifest_filepath": None, "sample_rate": 16000, "batch_size": 8, "shuffle": shuffle}


def _ctc_decoder() -> dict[str, Any]:
    return {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": None,
        "num_classes": -1,
        "vocabulary": [],
    }


def _transducer(kind: Kind, d_model: int) -> dict[str, Any]:
    asr = "nemo.collections.asr.modules"
    tdt = kind != "rnnt"
    settings: dict[str, Any] = {
        "rnnt_reduction": "mean_batch",
        "model_defaults": {"enc_hidden": d_model, "pred_hidden": 64, "joint_hidden": 64},
        "decoder": {
            "_target_": f"{asr}.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {"pred_hidden": 64, "pred_rnn_layers": 1, "dropout": 0.0},
        },
        "joint": {
            "_target_": f"{asr}.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": True,
            "fused_batch_size": 16,
            "jointnet": {"joint_hidden": 64, "activation": "relu", "dropout": 0.0},
            **({"num_extra_outputs": len(DURATIONS)} if tdt else {}),
        },
        "decoding": {
            "strategy": "greedy_batch",
            "greedy": {"max_symbols": 10},
            "beam": {"beam_size": 2, "return_best_hypothesis": False},
            **({"model_type": "tdt", "durations": DURATIONS} if tdt else {}),
        },
        "loss": {"loss_name": "default", "warprnnt_numba_kwargs": {"fastemit_lambda": 0.0}},
    }
    if tdt:
        settings["loss"] = {
            "loss_name": "tdt",
            "tdt_kwargs": {
                "fastemit_lambda": 0.0,
                "clamp": -1.0,
                "durations": DURATIONS,
                "sigma": 0.02,
                "omega": 0.0,
            },
        }
    return settings


def main(argv: list[str] | None = None) -> int:
    """Build from the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.tiny_nemo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--normalized", action="store_true", help="as the configs' text says")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--kind", choices=("ctc", "tdt", "rnnt", "hybrid"), default="ctc")
    parser.add_argument("--window", type=int, help="not used: a Conformer has no fixed window")
    parser.add_argument("--d-model", type=int, default=96)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=96, help="tokens (default 96)")
    parser.add_argument("--subsampling", type=int, choices=(4, 8), default=4)
    # At 64 the convolutions of a small model cost as much as all that follows them.
    parser.add_argument("--channels", type=int, default=64, help="of the subsampling (default 64)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        build(
            read_texts(args.text, normalized=args.normalized),
            args.out,
            kind=args.kind,
            d_model=args.d_model,
            layers=args.layers,
            heads=args.heads,
            vocabulary=args.vocabulary,
            subsampling=args.subsampling,
            channels=args.channels,
            seed=args.seed,
        )
    except (OSError, ValueError) as error:
        print(f"tiny_nemo: {error}", file=sys.stderr)
        return 1
    log.info("wrote %s", args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
