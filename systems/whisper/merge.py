"""Merge a trained adapter into its base: a plain Hugging Face checkpoint for any other tool.

    python -m systems.whisper.merge exp/whisper_small/final --out exp/whisper_small/merged

reads the folder that training wrote and writes config.json, model.safetensors, the processor's
files, generation_config.json, preprocessor_config.json and normalizer.json.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from systems.experiment import publish


def merge(final: str | Path, out: Path, base: str | Path | None = None) -> Path:
    """Write the model of ``final`` (float32, its training's window) as a whole to ``out``.

    ``base`` says where an adapter's base is, when it has moved. ValueError when ``out`` exists,
    or when the window is no whole number of seconds, which other tools cannot express.
    """
    from systems.whisper.checkpoint import load_model, save_processor
    from systems.whisper.window import shorten, window_of

    if out.exists():
        raise ValueError(f"{out}: exists already, must be a new folder")
    model, processor = load_model(final, base=base)
    window = window_of(model)
    if not window.is_integer():
        raise ValueError(f"{final}: window is {window:g} s, must be whole seconds to be merged")
    shorten(model, processor, window)
    model.config.apply_spec_augment = False

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        save_processor(processor, folder)

    publish(out, write)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="systems.whisper.merge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("final", help="what training wrote, or any Whisper checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--base", help="where the adapter's base is now")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO)
    try:
        merge(arguments.final, arguments.out, arguments.base)
    except (OSError, ValueError) as error:
        print(f"systems.whisper.merge: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
