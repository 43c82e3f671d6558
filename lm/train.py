"""Build the word n-gram with KenLM: normalised text to a pruned, quantised binary.

Example::

    python -m lm.train --text stories.txt --manifest train.jsonl --dev dev.jsonl \
        --order 4 --out exp/lm

Reads text, one sentence to a line, and the ``text`` of manifests, ours or NeMo's; both may be
``.gz``. Lines are normalised by `manifests.normalize_text`, as every later query is, and empty
ones dropped::

    "He goed home!"  ->  he goed home

Writes a folder with ``lm.binary``, ``unigrams.txt`` and ``lm.json``, which begins::

    {"order":4,"sentences":11000,"words":377676,"ngrams":[21606,176647,25876,6758],...}
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import msgspec

from lm.ngram import BINARY, INFO, UNIGRAMS, NGram, Perplexity
from lm.sentences import read_sentences
from manifests import part_path, write_json
from manifests.meta import write_meta

log = logging.getLogger(__name__)

ORDERS = (3, 4, 5)
PRUNE = (0, 0, 1)
QUANTIZE = 8
# For lmplz's sorting: what does not fit goes through the disk, with the same result. Its own
# default, 80 % of the machine, costs seconds of clearing memory even for a tiny text.
_MEMORY = "512M"


class LmInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``lm.json`` says."""

    order: int
    sentences: int
    words: int
    ngrams: tuple[int, ...]  # of each length, after pruning; sentence marks and <unk> counted
    prune: tuple[int, ...]  # n-grams of each length seen at most so often were dropped
    quantize: int  # bits for a probability or back-off; 0 = floats
    discount_fallback: bool  # too little text to estimate Kneser-Ney discounts
    sources: tuple[str, ...]
    dev: Perplexity | None = None


def train(
    sources: Sequence[Path],
    out: Path,
    *,
    order: int = 4,
    dev: Path | None = None,
    prune: Sequence[int] = PRUNE,
    quantize: int = QUANTIZE,
) -> LmInfo:
    """Build the n-gram of all sources (texts or manifests, in order) into the folder ``out``.

    An n-gram seen at most ``prune[n - 1]`` times is dropped (the last value holds for all
    longer ones); ``quantize`` is the bits of a stored probability, 0 for floats. The folder
    appears complete or not at all and replaces an older one. ValueError for wrong settings or
    no text, RuntimeError when a tool fails.
    """
    _check(order, prune, quantize)
    out = Path(out).resolve()
    _check_paths([*sources, *([] if dev is None else [dev])], out)
    work = part_path(out)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    text = work / "text"
    sentences, words = _write_text(text, sources)
    arpa = work / "arpa"
    fallback, prune = _estimate(text, arpa, order, list(prune))
    ngrams, unigrams = _read_arpa(arpa)
    _binarize(arpa, work / BINARY, quantize)
    text.unlink()
    arpa.unlink()
    (work / UNIGRAMS).write_text("".join(f"{word}\n" for word in unigrams), encoding="utf-8")
    ngram = NGram(work)
    if ngram.order != order or not all(ngram.in_vocabulary(word) for word in unigrams):
        raise RuntimeError(f"{work}: order {ngram.order}, must be {order} with all its words")
    info = LmInfo(
        order=order,
        sentences=sentences,
        words=words,
        ngrams=ngrams,
        prune=tuple(prune),
        quantize=quantize,
        discount_fallback=fallback,
        sources=tuple(str(path) for path in sources),
        dev=None if dev is None else evaluate(ngram, dev),
    )
    write_meta(work / INFO, {"order": order, "prune": prune, "quantize": quantize})
    write_json(work / INFO, info)
    if out.exists():
        shutil.rmtree(out)
    work.replace(out)
    return info


def evaluate(ngram: NGram, dev: Path) -> Perplexity:
    """Return the perplexity and the rate of unknown words on a text or manifest."""
    sentences = read_sentences(Path(dev))
    first = next(sentences, None)
    if first is None:
        raise ValueError(f"{dev}: no words, must hold some text")
    return ngram.perplexity(chain([first], sentences))


def _check(order: int, prune: Sequence[int], quantize: int) -> None:
    if order not in ORDERS:
        raise ValueError(f"order is {order}, must be 3, 4 or 5")
    if not 0 < len(prune) <= order or list(prune) != sorted(prune) or prune[0] != 0:
        raise ValueError(
            f"prune is {list(prune)}, must be at most {order} counts that start at 0 (every "
            "word is kept) and never fall"
        )
    if quantize and not 2 <= quantize <= 25:
        raise ValueError(f"quantize is {quantize} bits, must lie in [2, 25], or 0 for floats")


def _check_paths(read: Sequence[Path], out: Path) -> None:
    """Raise ValueError for what would otherwise be met after hours of lmplz."""
    for path in read:
        if not Path(path).exists() or Path(path).is_dir():
            raise ValueError(f"{path}: no such file, must be a text or a manifest")
    if out.exists() and not (out / INFO).exists() and any(out.iterdir()):
        raise ValueError(f"{out}: exists and is not an n-gram folder, must be new or empty")


def _write_text(text: Path, sources: Sequence[Path]) -> tuple[int, int]:
    """Write the normalised sentences and return their number and that of their words."""
    sentences = words = 0
    with text.open("w", encoding="utf-8") as handle:
        for source in sources:
            for sentence in read_sentences(Path(source)):
                handle.write(sentence + "\n")
                sentences += 1
                words += sentence.count(" ") + 1
    if not sentences:
        raise ValueError(f"{', '.join(map(str, sources))}: no words, must hold some text")
    return sentences, words


def _estimate(text: Path, arpa: Path, order: int, prune: list[int]) -> tuple[bool, list[int]]:
    """Run lmplz; return whether discounts were assumed, and the pruning that was possible."""
    fallback = _lmplz(text, arpa, order, prune)
    if any(prune) and not _read_arpa(arpa)[0][-1]:
        log.warning("pruning by %s leaves no %d-gram of so little text: not pruned", prune, order)
        prune = [0]
        fallback = _lmplz(text, arpa, order, prune)
    return fallback, prune


def _lmplz(text: Path, arpa: Path, order: int, prune: list[int]) -> bool:
    command = [tool("lmplz"), "-o", str(order), "--prune", *map(str, prune)]
    command += ["-S", _MEMORY, "-T", str(text.parent) + "/"]
    command += ["--text", str(text), "--arpa", str(arpa)]
    try:
        _run(command)
    except RuntimeError as error:
        if "--discount_fallback" not in str(error):
            raise
        log.warning("too little text to estimate Kneser-Ney discounts: KenLM's defaults taken")
        _run([*command, "--discount_fallback"])
        return True
    return False


def _binarize(arpa: Path, binary: Path, quantize: int) -> None:
    bits = ["-q", str(quantize), "-b", str(quantize)] if quantize else []
    _run(
        [tool("build_binary"), *bits, "-T", str(arpa.parent) + "/", "trie", str(arpa), str(binary)]
    )


def _read_arpa(arpa: Path) -> tuple[tuple[int, ...], list[str]]:
    """Return the number of n-grams of each length and the sorted words."""
    counts, words = [], []
    with arpa.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("ngram "):
                counts.append(int(line.partition("=")[2]))
            elif line.startswith("\\2-grams:"):
                break
            elif "\t" in line:
                words.append(line.split("\t")[1].rstrip("\n"))
    return tuple(counts), sorted(set(words) - {"<unk>", "<s>", "</s>"})


def tool(name: str) -> str:
    """Return the path of a KenLM program: beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is missing, build it with recipes/install_lmplz.sh")
    return found


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        # KenLM's progress bars and stage titles say nothing about the error.
        lines = [line for line in done.stderr.splitlines() if line[:3] not in ("===", "---", "***")]
        tail = " | ".join(line for line in lines[-6:] if line.strip())
        raise RuntimeError(f"{Path(command[0]).name} failed ({done.returncode}): {tail}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lm.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--manifest", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="LM_DIR")
    parser.add_argument("--order", type=int, default=4, help="3 to 5 (default 4)")
    parser.add_argument("--dev", type=Path, metavar="FILE", help="manifest or text to evaluate on")
    parser.add_argument(
        "--prune", nargs="+", type=int, default=list(PRUNE), metavar="N",
        help="drop n-grams seen at most so often, from words up (default 0 0 1; 0 = keep all)",
    )  # fmt: skip
    parser.add_argument(
        "--quantize", type=int, default=QUANTIZE, metavar="BITS",
        help="bits of a stored probability (default 8; 0 = floats)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    if not args.text and not args.manifest:
        parser.error("give --text or --manifest, or both")
    try:
        info = train(
            [*args.text, *args.manifest],
            args.out,
            order=args.order,
            dev=args.dev,
            prune=args.prune,
            quantize=args.quantize,
        )
    except (OSError, RuntimeError, ValueError) as error:
        print(f"lm.train: {error}", file=sys.stderr)
        return 1
    log.info("%s: %d words, n-grams %s", args.out, info.words, "/".join(map(str, info.ngrams)))
    if info.dev is not None:
        log.info(
            "dev: perplexity %.1f, %.1f without unknown words; %.2f %% of %d words unknown",
            info.dev.perplexity,
            info.dev.perplexity_without_oov,
            100 * info.dev.oov_rate,
            info.dev.words,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
