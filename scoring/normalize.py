"""The competition's text normalisation: Whisper's EnglishTextNormalizer with its spelling table.

Known behaviour that matters for children: "one two three" becomes "123" (one token), "oh"
becomes "0", "and a half" disappears, um, uh and hmm vanish, a curly apostrophe splits the word.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import cast


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # does not run the package
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed: pip install {package}")
    return Path(spec.origin).parent


@cache
def _normalizer() -> Callable[[str], str]:
    """Build the normaliser from transformers' own file, loaded by path.

    Importing it through the package runs transformers' start-up (1.3 s here) for a module
    that needs only `re`.
    """
    path = _package_folder("transformers") / "models" / "whisper" / "english_normalizer.py"
    name = "scoring._english_normalizer"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{path}: must be a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    table = _package_folder("whisper_normalizer") / "normalizers" / "english.json"
    spelling = json.loads(table.read_text(encoding="utf-8"))
    return cast("Callable[[str], str]", module.EnglishTextNormalizer(spelling))


# One call costs 75 us, and the same references are scored for every system and checkpoint.
@lru_cache(maxsize=1 << 18)
def normalize_english(text: str) -> str:
    """Return ``text`` as the competition compares it.

    >>> normalize_english("Um, he's got colour\\u2014 twenty-one of them!")
    'he has got color 21 of them'
    """
    return _normalizer()(text).strip()
