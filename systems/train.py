"""Fine-tune one recogniser.

    python -m systems.train whisper --config recipes/conf/whisper_small.yaml \\
        --train data/train.jsonl --dev data/dev.jsonl --exp exp/whisper_small \\
        train.learning_rate=5e-5

reads two manifests and writes the folder exp/whisper_small/final (last, and as a whole), with
metrics.json, checkpoints/ and logs/ beside it. Run again after a kill it resumes; when final is
there it does nothing. On several cards: torchrun --nproc_per_node 4 -m systems.train whisper ...
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from systems.config import load_config
from systems.contract import REGISTRY, system_class
from systems.experiment import FINAL
from systems.lock import OnlyOne

log = logging.getLogger("systems.train")


def train(
    name: str,
    config: Path | None,
    train: Path,
    dev: Path,
    exp: Path,
    overrides: Sequence[str] = (),
) -> Path:
    """Fine-tune the system ``name`` and return ``exp/final``; ValueError says what is wrong."""
    for manifest in (train, dev):
        if not manifest.is_file():
            raise ValueError(f"{manifest}: no such manifest, must be a JSON Lines file")
    system = system_class(name)
    settings = load_config(system.config_type, config, overrides)
    # Of a distributed run the first process is the one that writes.
    writes = os.environ.get("RANK", "0") == "0" and not (exp / FINAL).exists()
    with OnlyOne(exp / "lock", exp) if writes else nullcontext():
        return system(settings).train(train, dev, exp)


def _reason(error: Exception) -> str:
    """Return what an error says, without the traceback that torch puts before a worker's.

    >>> _reason(ValueError("Caught ValueError in worker 0.\\nTraceback\\nValueError: a is b\\n"))
    'a is b'
    """
    text = str(error)
    if not text.startswith("Caught "):
        return text
    return text.rpartition(f"\n{type(error).__name__}: ")[2].strip()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="systems.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=sorted(REGISTRY), help="the recogniser")
    parser.add_argument("--config", type=Path, help="YAML; without it the defaults")
    parser.add_argument("--train", type=Path, required=True, help="manifest to learn from")
    parser.add_argument("--dev", type=Path, required=True, help="manifest to choose by")
    parser.add_argument("--exp", type=Path, required=True, help="folder of this training")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="set a config key")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    arguments = parser.parse_intermixed_args(argv)
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if first else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        final = train(
            arguments.name,
            arguments.config,
            arguments.train,
            arguments.dev,
            arguments.exp,
            arguments.overrides,
        )
    except (OSError, ValueError) as error:
        if arguments.traceback:
            raise
        print(f"systems.train: {_reason(error)}", file=sys.stderr)
        return 1
    log.info("trained: %s", final)
    return 0


if __name__ == "__main__":
    sys.exit(main())
