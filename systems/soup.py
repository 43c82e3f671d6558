"""Average several trainings of one recogniser: one model, and decoding costs what one costs.

    python -m systems.soup whisper --config recipes/conf/mini/whisper.yaml \\
        --checkpoints exp/a/final exp/b/final exp/c/final --out exp/soup --greedy --dev dev.jsonl

reads what `systems.train` wrote (or any checkpoints of one shape) and writes a checkpoint that
`systems.decode` takes, with soup.json beside its weights:
{"method":"greedy","ingredients":[{"checkpoint":"exp/b/final","errors":61,"tried":61,"kept":true},
...],"errors":57,"words":527,"wer":0.1082}.

Without ``--greedy`` all are averaged. With it they are sorted by their word errors on dev, and each
is kept only if the mean with it has no more errors there than the mean without it, so that the
result is never worse on dev than the best of them (Wortsman et al. 2022, arXiv 2203.05482).
A killed call goes on where it was: hypotheses and means lie in OUT.work until it is done.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from manifests import write_json
from scoring.metric import count_word_errors
from scoring.pairs import read_hypotheses, read_references
from systems.config import load_config
from systems.contract import REGISTRY, System, system_class
from systems.decode import decode
from systems.experiment import publish, same_settings, sha256, write_settings
from systems.journal import files_digest

log = logging.getLogger("systems.soup")

REPORT = "soup.json"


class Ingredient(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One checkpoint, in the order in which it was tried."""

    checkpoint: str
    kept: bool
    errors: int | None = None  # on dev, alone
    tried: int | None = None  # of the mean of all that were kept before, and this one


class Soup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``soup.json`` says."""

    method: Literal["uniform", "greedy"]
    ingredients: tuple[Ingredient, ...]
    errors: int | None = None  # on dev, of the result
    words: int | None = None  # of dev's references
    wer: float | None = None

    @property
    def kept(self) -> list[str]:
        return [one.checkpoint for one in self.ingredients if one.kept]


def soup(
    name: str,
    config: Any,
    checkpoints: Sequence[str],
    out: Path,
    *,
    dev: Path | None = None,
    lm: Path | None = None,
) -> Soup:
    """Write the mean of ``checkpoints`` of system ``name`` to ``out``, or the greedy soup on dev.

    ``config`` says how dev is decoded, ``lm`` with which n-gram. ValueError when ``out`` exists
    or the checkpoints do not fit together.
    """
    if out.exists():
        raise ValueError(f"{out}: exists already, must be a new folder")
    if len(set(map(_place, checkpoints))) < max(2, len(checkpoints)):
        raise ValueError(f"{', '.join(checkpoints)}: must be two or more different checkpoints")
    system: System = system_class(name)(config)
    if dev is None:
        ingredients = tuple(Ingredient(checkpoint=one, kept=True) for one in checkpoints)
        found = Soup(method="uniform", ingredients=ingredients)
    else:
        found = _Kitchen(name, system, checkpoints, out, dev, lm).greedy()

    def write(folder: Path) -> None:
        system.average(found.kept, folder)
        write_json(folder / REPORT, found)

    publish(out, write)
    shutil.rmtree(_work(out), ignore_errors=True)
    return found


class _Kitchen:
    """Decodes dev with single checkpoints and with means of some, each once."""

    def __init__(
        self,
        name: str,
        system: System,
        checkpoints: Sequence[str],
        out: Path,
        dev: Path,
        lm: Path | None,
    ) -> None:
        self._name, self._system, self._lm, self._dev = name, system, lm, dev
        self._checkpoints = checkpoints
        self._references = read_references(dev)
        self._work = _work(out)
        settings = {
            "config": msgspec.to_builtins(system.config),
            "checkpoints": {one: files_digest(one) for one in checkpoints},
            "lm": None if lm is None else files_digest(lm),
            "dev": sha256(dev),
        }
        if not same_settings(self._work, settings):
            write_settings(self._work, settings)

    def greedy(self) -> Soup:
        """Return which checkpoints are kept, and what dev said of each step."""
        alone = [self._errors([n]) for n in range(len(self._checkpoints))]
        order = sorted(range(len(alone)), key=lambda n: alone[n])
        kept, best = order[:1], alone[order[0]]
        ingredients = [self._ingredient(order[0], alone, best, kept=True)]
        for n in order[1:]:
            tried = self._errors([*kept, n])
            ingredients.append(self._ingredient(n, alone, tried, kept=tried <= best))
            if tried <= best:
                kept, best = [*kept, n], tried
        words = count_word_errors([row.text or "" for row in self._references],
                                  [""] * len(self._references)).words  # fmt: skip
        return Soup(
            method="greedy",
            ingredients=tuple(ingredients),
            errors=best,
            words=words,
            wer=best / words if words else None,
        )

    def _ingredient(self, n: int, alone: Sequence[int], tried: int, *, kept: bool) -> Ingredient:
        checkpoint = self._checkpoints[n]
        log.info(
            "%s: %d errors alone, %d with those kept: %s",
            checkpoint, alone[n], tried, "kept" if kept else "left out",
        )  # fmt: skip
        return Ingredient(checkpoint=checkpoint, kept=kept, errors=alone[n], tried=tried)

    def _errors(self, chosen: Sequence[int]) -> int:
        """Return the word errors on dev of one checkpoint, or of the mean of several."""
        label = "-".join(str(n + 1) for n in chosen)
        heard, mean = self._work / f"{label}.jsonl", self._work / label
        if not heard.exists():
            checkpoint = self._checkpoints[chosen[0]]
            if len(chosen) > 1:
                checkpoint = str(mean)
                if not mean.exists():
                    these = [self._checkpoints[n] for n in chosen]
                    publish(mean, lambda folder: self._system.average(these, folder))
            done = decode(
                self._name, self._system.config, checkpoint, self._dev, heard, lm=self._lm
            )
            if done.fault is not None:
                heard.unlink()
                raise ValueError(
                    f"{self._dev}: none of {done.utterances} utterances could be decoded, the "
                    f"first: {done.fault}"
                )
        shutil.rmtree(mean, ignore_errors=True)  # a model's size each
        rows = read_hypotheses(heard, self._references)
        texts = ["" if row.error is not None else row.best.text for row in rows]
        return count_word_errors([row.text or "" for row in self._references], texts).errors


def _work(out: Path) -> Path:
    return out.with_name(out.name + ".work")


def _place(checkpoint: str) -> str:
    path = Path(checkpoint).expanduser()
    return str(path.resolve()) if path.exists() else checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m systems.soup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=sorted(REGISTRY), help="the recogniser")
    parser.add_argument("--config", type=Path, required=True, metavar="C.yaml")
    parser.add_argument("--checkpoints", nargs="+", required=True, metavar="DIR", help="or hub ids")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--greedy", action="store_true", help="keep only what helps on --dev")
    parser.add_argument("--dev", type=Path, metavar="DEV.jsonl", help="manifest to choose by")
    parser.add_argument("--lm", type=Path, metavar="LM_DIR", help="n-gram for decoding dev")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config overrides")
    args = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    if args.greedy != (args.dev is not None):
        parser.error("--greedy needs --dev, and only it does")
    try:
        config = load_config(system_class(args.name).config_type, args.config, args.overrides)
        found = soup(args.name, config, args.checkpoints, args.out, dev=args.dev, lm=args.lm)
    except (OSError, ValueError) as error:
        print(f"systems.soup: {error}", file=sys.stderr)
        return 1
    log.info("%s: the mean of %s", args.out, ", ".join(found.kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
