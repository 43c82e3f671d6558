"""A small, untrained OWSM in the layout of the published ones, for runs without a network.

The classes, the files, the special tokens and the configuration keys are those of
espnet/owsm_v4_* (or, with --family ctc, espnet/owsm_ctc_v4_1B); only the sizes and the
SentencePiece vocabulary (learned from the given texts) are small, so what loads, trains and
decodes this model does the same with the published ones.

    python -m recipes.tiny_owsm --text train.jsonl --out exp/mini/owsm/init --window 4 --seed 1

reads the ``text`` and some of the audio of manifests (``.jsonl``), or plain text files, and writes
``meta.yaml``, ``exp/owsm/{config.yaml,model.pth}``, ``data/token_list/bpe/{bpe.model,tokens.txt}``
and ``exp/stats/feats_stats.npz`` to --out.
"""

from __future__ import annotations

import argparse
import io
import itertools
import logging
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from manifests.audio import Samples, load_audio
from manifests.jsonl import part_path, read_rows
from manifests.meta import write_meta
from manifests.rows import Utterance
from recipes.texts import read_texts
from recipes.tiny_owsm_config import config_of, times
from systems.owsm.layout import write_layout
from systems.owsm.toolkit import Family, quiet, task_class

log = logging.getLogger(__name__)

LANGUAGES = ("eng", "deu", "spa")  # OWSM knows 151
TASKS = ("asr", "st_deu", "st_eng")
MARKS = (
    *("<na>", "<nospeech>", "<nolang>"),
    *(f"<{name}>" for name in (*LANGUAGES, *TASKS)),
    "<notimestamps>",
)
_HEARD = 200  # utterances from which the features' mean and deviation are estimated


def build(
    texts: Iterable[str],
    out: Path,
    *,
    window: float,
    audio: Iterable[Samples] = (),
    family: Family = "aed",
    width: int = 64,
    blocks: int = 3,
    decoder_blocks: int = 2,
    units: int = 2,
    pieces: int = 90,
    mels: int = 32,
    subsampling: int = 8,
    seed: int = 1,
) -> Path:
    """Write a randomly initialised OWSM with a window of ``window`` s; return ``out``.

    ``units`` times the width is the inner width of a block's layers, in published models 4;
    ``pieces`` is the most that the vocabulary may hold beyond the special tokens: the fewer, the
    sooner CTC finds where each is said. The features are normalised by the statistics of
    ``audio``; the published ``subsampling`` is 8, frames of 80 ms. The same arguments give the
    same weights and vocabulary. A folder ``out`` that exists is replaced.
    """
    import torch

    part = part_path(out)  # so that a folder that exists is whole
    shutil.rmtree(part, ignore_errors=True)
    lists = part / "data" / "token_list" / "bpe"
    lists.mkdir(parents=True)
    tokens = _train_bpe(texts, lists / "bpe.model", [*MARKS, *times(window)], pieces)
    (lists / "tokens.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    task = task_class(family)
    config = _defaults(task)
    config |= config_of(tokens, window, family, width, blocks, units, mels, subsampling)
    if family == "aed":
        config["decoder_conf"]["num_blocks"] = decoder_blocks
    stats = part / "exp" / "stats" / "feats_stats.npz"
    stats.parent.mkdir(parents=True)
    np.savez(stats, **_statistics(config["frontend_conf"], audio))
    config["bpemodel"] = str(lists / "bpe.model")
    config["normalize_conf"] = {"stats_file": str(stats)}
    torch.manual_seed(seed)
    with quiet():
        model = task.build_model(Namespace(**config))
    if family == "aed":
        # ESPnet draws it with a deviation of 1 and scales it by sqrt(width), so that what the
        # decoder hears is drowned in what it has just said.
        torch.nn.init.normal_(model.decoder.embed[0].weight, std=width**-0.5)
    write_layout(part, config, model.state_dict(), root=part)
    parameters = sum(weight.numel() for weight in model.parameters())
    write_meta(part / "model", {"seed": seed, "parameters": parameters})
    shutil.rmtree(out, ignore_errors=True)
    part.replace(out)
    return out


def _defaults(task: Any) -> dict[str, Any]:
    """Return ESPnet's default configuration, for which it also reads the command line."""
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        config: dict[str, Any] = task.get_default_config()
        return config
    finally:
        sys.argv = arguments


def _train_bpe(texts: Iterable[str], path: Path, special: Sequence[str], pieces: int) -> list[str]:
    """Write a SentencePiece model of ``texts``; return the token list."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="unigram",
        vocab_size=len(special) + pieces + 3,  # <unk>, <s>, </s>
        hard_vocab_limit=False,
        character_coverage=1.0,
        user_defined_symbols=list(special),
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    learned = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    own = {"<unk>", "<s>", "</s>", *special}
    spelled = [learned.id_to_piece(index) for index in range(len(learned))]
    words = [piece for piece in spelled if piece not in own]
    return ["<blank>", "<unk>", *special, *words, "<sos>", "<eos>", "<sop>"]


def _statistics(frontend_conf: dict[str, Any], audio: Iterable[Samples]) -> dict[str, Any]:
    """Return ESPnet's sums of the features of ``audio``; without any, of zero mean and unit."""
    import torch
    from espnet2.asr.frontend.default import DefaultFrontend

    frontend = DefaultFrontend(**frontend_conf)
    count, total = 0, np.zeros(frontend_conf["n_mels"])
    squares = total.copy()
    with torch.inference_mode():
        for samples in audio:
            speech = torch.from_numpy(samples)[None]
            features = frontend(speech, torch.tensor([speech.shape[1]]))[0][0].double().numpy()
            count += len(features)
            total += features.sum(axis=0)
            squares += np.square(features).sum(axis=0)
    if not count:
        count, squares = 1, squares + 1
    return {"count": np.array(count), "sum": total, "sum_square": squares}


def read_audio(paths: Iterable[Path]) -> Iterator[Samples]:
    """Yield the samples of the first utterances of manifests."""
    for path in paths:
        if path.suffix == ".jsonl":
            for row in itertools.islice(read_rows(path, Utterance), _HEARD):
                yield load_audio(path.parent / row.audio_filepath, row.offset, row.duration)


def main(argv: list[str] | None = None) -> int:
    """Build from the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.tiny_owsm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--normalized", action="store_true", help="as the configs' text says")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--window", type=float, default=4, help="seconds of audio (default 4)")
    parser.add_argument("--family", choices=("aed", "ctc"), default="aed")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=3, help="of the encoder (default 3)")
    parser.add_argument("--decoder-blocks", type=int, default=2)
    parser.add_argument("--pieces", type=int, default=90, help="learned tokens (default 90)")
    parser.add_argument("--subsampling", type=int, choices=(4, 8), default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        build(
            read_texts(args.text, normalized=args.normalized),
            args.out,
            window=args.window,
            audio=read_audio(args.text[:1]),
            family=args.family,
            width=args.width,
            blocks=args.blocks,
            decoder_blocks=args.decoder_blocks,
            pieces=args.pieces,
            subsampling=args.subsampling,
            seed=args.seed,
        )
    except (OSError, ValueError) as error:
        print(f"tiny_owsm: {error}", file=sys.stderr)
        return 1
    log.info("wrote %s", args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
