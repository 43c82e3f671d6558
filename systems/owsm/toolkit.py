"""ESPnet, imported without what OWSM never uses: silent, offline and faster.

`espnet2.tasks` loads every model of the toolkit. On the way g2p_en downloads dictionaries,
flash_attn's absence is printed to stdout, transformers, wandb, nltk and the whole of GAN-TTS
are loaded, and typeguard compiles every decorated function a second time. While the tasks are
imported, inert stand-ins take the place of those; afterwards the real ones are there as ever.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Literal

from systems.importing import nothing_to_collect

Family = Literal["aed", "ctc"]
"""OWSM (attention-based encoder-decoder with a CTC branch) or OWSM-CTC (encoder only)."""

TASKS: dict[Family, str] = {"aed": "espnet2.tasks.s2t", "ctc": "espnet2.tasks.s2t_ctc"}

# Names that ESPnet takes from modules which are stood in for.
_INERT: dict[str, tuple[str, ...]] = {
    "g2p_en": (),
    "flash_attn": ("flash_attn_func", "flash_attn_varlen_func"),
    "flash_attn.bert_padding": ("pad_input", "unpad_input"),
    "espnet2.main_funcs.calculate_all_attentions": ("calculate_all_attentions",),
}
# ESPnet does without these where they are not installed.
_ABSENT = ("transformers", "wandb", "s3prl", "whisper", "fairseq")
_lock = threading.Lock()


def task_class(family: Family) -> Any:
    """Return ESPnet's task of a family of models (`S2TTask`)."""
    with _lock:
        if TASKS[family] not in sys.modules:
            _settle()
            with _stand_ins(), nothing_to_collect():
                importlib.import_module(TASKS[family])
    return sys.modules[TASKS[family]].S2TTask


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Let inert modules stand in for what is not needed, until the ``with`` block ends."""
    import typeguard

    names = [name for name in (*_INERT, *_ABSENT) if not _is_loaded(name)]
    checked, typeguard.typechecked = typeguard.typechecked, _unchecked
    for name in names:
        if name in _INERT:
            module = ModuleType(name)
            # transformers asks every module for it when it looks for optional packages.
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            module.__dict__.update(dict.fromkeys(_INERT[name]))
            sys.modules[name] = module
        else:
            sys.modules[name] = None  # type: ignore[assignment]  # documented: ImportError
    try:
        with warnings.catch_warnings():
            # Invalid escapes and the like in packages that are compiled for the first time.
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        typeguard.typechecked = checked
        for name in names:
            sys.modules.pop(name, None)


def _unchecked(target: Any = None, **options: Any) -> Any:
    """Decorate with nothing: stands in for `typeguard.typechecked`, half of ESPnet's import."""
    return target if target is not None else _unchecked


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what ESPnet reports through the root logger while it builds a model."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        root.setLevel(level)


def _is_loaded(name: str) -> bool:
    return sys.modules.get(name) is not None


def _settle() -> None:
    """Keep ESPnet's deprecated calls and its progress messages out of our log."""
    warnings.filterwarnings("ignore", r"`torch\.cuda\.amp\.", FutureWarning)
    for name in ("espnet", "espnet2"):
        logging.getLogger(name).setLevel(logging.ERROR)
