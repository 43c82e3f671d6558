"""A recipe's settings: which corpus, which sets, which config for each system.

    python -m recipes.recipe recipes/conf/mini.yaml

prints one ``key=value`` a line (``corpus=mini``), which is how `run.sh` reads a recipe.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from systems.config import Config, load_config


class Recipe(Config, frozen=True):
    """What `run.sh` needs to know of a corpus."""

    corpus: str  # an importer of `manifests.prepare`
    source: str = ""  # the corpus' folder; "" = made under the experiment's folder
    where: str = ""  # where to get the corpus, for the user who has not got it
    min_seconds: float = 0.1
    max_seconds: float = 30.0
    dev_share: float = 0.0  # split off train by speaker; 0 = the corpus brings a dev set
    seed: int = 1
    submission_format: str = ""  # names what stage 8 has to answer; in the corpus' folder
    lm_order: int = 4
    lm_text: str = ""  # further text for the n-gram, beside train's
    # A causal language model that fusion may ask too: a hub id, a folder, or "tiny" for a small
    # GPT-2 trained on the n-gram's text.
    causal_lm: str = ""
    whisper: str = ""  # config of each system: fine-tuning and decoding
    whisper_base: str = ""  # config that pretrains a tiny base on `base_set`; "" = pretrained
    owsm: str = ""
    owsm_base: str = ""
    nemo: str = ""
    nemo_base: str = ""
    # Options of recipes.tiny_SYSTEM: how large the tiny base is.
    whisper_size: str = ""
    owsm_size: str = ""
    nemo_size: str = ""
    # Train and decode all systems at once: for models so tiny that one of them leaves cores idle.
    side_by_side: bool = False
    # Decoding options where the n-gram is in the search; "" = what was best for rescoring dev.
    whisper_lm: str = ""
    owsm_lm: str = ""
    nemo_lm: str = ""
    base_set: str = "adults"
    # The base also hears train's sentences in synthetic voices (`manifests.corpora.read_aloud`).
    read_aloud: bool = False
    # Fine-tuning and the n-gram take `base_set` too, where the children of train are few.
    tune_on_base: bool = False
    # Fine-tuning also hears train at these speeds (`manifests.perturb`), such as "0.9 1.1".
    speed_perturb: str = ""
    normalized: bool = False  # the configs train on normalised text; so learn vocabularies of it
    window: int = 4  # encoder window of the tiny base in seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    arguments = parser.parse_args()
    try:
        recipe = load_config(Recipe, arguments.recipe)
    except (OSError, ValueError) as error:
        print(f"recipe: {error}", file=sys.stderr)
        return 2
    for key, value in msgspec.structs.asdict(recipe).items():
        print(f"{key}={value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
