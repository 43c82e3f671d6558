"""Load any OWSM strictly, and write it in the layout that plain ESPnet loads."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.device import Device, Precision
from manifests.rows import Seconds
from systems.owsm.layout import Layout, find_layout
from systems.owsm.toolkit import Family, quiet, task_class

_SHOWN = 5
# OWSM names languages by ISO 639-3; manifests may use the shorter ISO 639-1.
_LONG_NAMES = {
    "ar": "ara", "cs": "ces", "cy": "cym", "da": "dan", "de": "deu", "el": "ell", "en": "eng",
    "es": "spa", "et": "est", "fa": "fas", "fi": "fin", "fr": "fra", "he": "heb", "hi": "hin",
    "hr": "hrv", "hu": "hun", "id": "ind", "is": "isl", "it": "ita", "ja": "jpn", "ko": "kor",
    "lt": "lit", "lv": "lav", "nl": "nld", "no": "nor", "pl": "pol", "pt": "por", "ro": "ron",
    "ru": "rus", "sk": "slk", "sl": "slv", "sv": "swe", "ta": "tam", "th": "tha", "tr": "tur",
    "uk": "ukr", "ur": "urd", "vi": "vie", "zh": "zho",
}  # fmt: skip


@dataclass
class Owsm:
    """A loaded model: ESPnet's module, its training arguments and its SentencePiece model."""

    model: Any  # ESPnetS2TModel or ESPnetS2TCTCModel
    arguments: Namespace  # `preprocessor_conf` holds the window that is set
    layout: Layout
    family: Family
    pieces: Any  # sentencepiece.SentencePieceProcessor

    def __post_init__(self) -> None:
        self.tokens: list[str] = self.model.token_list
        self.ids = {token: index for index, token in enumerate(self.tokens)}

    @property
    def window(self) -> Seconds:
        """Seconds that the encoder hears."""
        return float(self.arguments.preprocessor_conf["speech_length"])

    @property
    def samples(self) -> int:
        """Samples that the encoder hears."""
        return round(self.window * int(self.arguments.preprocessor_conf["fs"]))

    def symbol(self, name: str) -> str:
        """Return the token of a language or task; ValueError when the model has none.

        Languages may be given as "en" or "eng".
        """
        for token in (f"<{name}>", f"<{_LONG_NAMES.get(name, name)}>"):
            if token in self.ids:
                return token
        raise ValueError(f"{self.layout.root}: knows no language or task {name!r}")

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, the first one with its word boundary."""
        unknown = self.ids["<unk>"]
        return [self.ids.get(piece, unknown) for piece in self.pieces.encode_as_pieces(text)]

    def text(self, ids: Any) -> str:
        """Return the text of tokens, special ones left out."""
        spelled = [self.tokens[index] for index in ids]
        said = [piece for piece in spelled if not is_special(piece)]
        return str(self.pieces.decode_pieces(said)).strip()


def is_special(token: str) -> bool:
    """Tell whether a token is a mark such as <eng> or <0.00>, not text."""
    return len(token) > 2 and token[0] == "<" and token[-1] == ">"


def load_owsm(
    checkpoint: str | Path,
    *,
    window: Seconds | None = None,
    device: Device = "cpu",
    precision: Precision = "fp32",
) -> Owsm:
    """Return the model of a folder, zip or hub id in eval mode.

    ``window`` sets how many seconds it hears (None: as the checkpoint says). ValueError when
    something is missing, the weights are not exactly the model's (ESPnet itself would leave
    the rest random), or audio is not at 16 kHz.
    """
    import sentencepiece
    import torch

    layout = find_layout(checkpoint)
    arguments = Namespace(**layout.config)
    family = _family(layout)
    _set_window(arguments, window, layout)
    with quiet(), torch.random.fork_rng(devices=[]):  # weights are drawn only to be replaced
        model = task_class(family).build_model(arguments)
    _load_weights(model, layout)
    for module in model.modules():
        if hasattr(module, "use_flash_attn"):
            module.use_flash_attn = False
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model = model.to(device=device, dtype=dtype).eval()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(arguments.bpemodel))
    return Owsm(model, arguments, layout, family, pieces)


def _family(layout: Layout) -> Family:
    kind = layout.config.get("preprocessor")
    if kind not in ("s2t", "s2t_ctc"):
        raise ValueError(f"{layout.config_file}: preprocessor is {kind!r}, must be s2t or s2t_ctc")
    rate = layout.config["preprocessor_conf"].get("fs", 16_000)
    if rate != 16_000:
        raise ValueError(f"{layout.config_file}: fs is {rate}, must be 16000")
    return "ctc" if kind == "s2t_ctc" else "aed"


def _set_window(arguments: Namespace, window: Seconds | None, layout: Layout) -> None:
    conf = dict(arguments.preprocessor_conf)
    published = float(conf.get("speech_length", 30))
    if window is not None and not 0.2 <= window <= 30:
        raise ValueError(f"window is {window:g} s, must lie between 0.2 and 30")
    conf["speech_length"] = published if window is None else window
    conf.setdefault("fs", 16_000)
    arguments.preprocessor_conf = conf


def _load_weights(model: Any, layout: Layout) -> None:
    import torch

    try:
        weights = torch.load(layout.weights, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: a torn zip, a pickle of something else
        reason = str(error).splitlines()[0]
        raise ValueError(f"{layout.weights}: no weights that torch can read ({reason})") from None
    weights = weights.get("module", weights)  # DeepSpeed's checkpoints
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - weights.keys())
    surplus = sorted(weights.keys() - wanted.keys())
    sizes = sorted(
        key for key in wanted.keys() & weights.keys() if wanted[key].shape != weights[key].shape
    )
    for problem, keys in (("missing", missing), ("unknown", surplus), ("of other size", sizes)):
        if keys:
            shown = ", ".join(keys[:_SHOWN])
            raise ValueError(
                f"{layout.weights}: {len(keys)} weights are {problem} ({shown}), "
                "must be exactly those of its configuration"
            )
    model.load_state_dict(weights)
