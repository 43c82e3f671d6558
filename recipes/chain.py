"""Run several of our commands in one process, one after another, until one fails.

A toolkit takes 3 to 8 s of processor time to import, so commands that need the same one are
quicker together. Each does the same as on its own.

    python -m recipes.chain recipes.tiny_whisper --text train.jsonl --out exp/init --then \\
        systems.train whisper --train train.jsonl --dev dev.jsonl --exp exp/base pretrained=exp/init

reads and writes what the commands do, and ends with the exit status of the last one it ran.
"""

from __future__ import annotations

import gc
import importlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

log = logging.getLogger(__name__)

THEN = "--then"


class Command(NamedTuple):
    """One link of a chain."""

    main: Callable[[], int]  # reads sys.argv, returns the exit status
    argv: list[str]


def parse(words: Sequence[str]) -> list[Command]:
    """Return the commands of a chain; ValueError when one is missing or no command of ours.

    >>> [one.argv[1:] for one in parse(["lm.train", "--order", "4", "--then", "lm.rescore"])]
    [['--order', '4'], []]
    """
    ends = [index for index, word in enumerate(words) if word == THEN]
    links = [words[a + 1 : b] for a, b in zip([-1, *ends], [*ends, len(words)], strict=True)]
    if not all(links):
        raise ValueError(f"{' '.join(words)!r} has {THEN} without a command on both sides")
    return [_command(name, arguments) for name, *arguments in links]


def _command(name: str, arguments: list[str]) -> Command:
    try:
        module = importlib.import_module(name)
        return Command(module.main, [str(module.__file__), *arguments])
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name}: {error}, must be a command's module") from None


def run(commands: Sequence[Command]) -> int:
    """Run commands until one fails; return the last exit status.

    Whatever a command raises, `SystemExit` too, ends the chain.
    """
    for command in commands:
        started = time.monotonic()
        sys.argv = command.argv  # as `python -m` has it; what is written holds it (`write_meta`)
        status = command.main()
        if status:
            return status
        log.info("%s: done in %.1f s", command.main.__module__, time.monotonic() - started)
        gc.collect()  # a model that is part of a cycle would keep its memory from the next one
    return 0


def main() -> int:
    # No parser: every option but --then is a command's own.
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(__doc__.strip())
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        commands = parse(sys.argv[1:])
    except ValueError as error:
        print(f"chain: {error}", file=sys.stderr)
        return 2
    return run(commands)


if __name__ == "__main__":
    sys.exit(main())
