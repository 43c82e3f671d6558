"""A manifest as training examples for OWSM, through ESPnet's own preprocessor and collation."""

from __future__ import annotations

import itertools
from argparse import Namespace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from manifests.audio import SAMPLE_RATE, Samples
from manifests.rows import Utterance
from manifests.text import normalize_text
from systems.examples import Example, ManifestExamples
from systems.owsm.checkpoint import Owsm, is_special
from systems.owsm.toolkit import task_class

IGNORE = -100  # what the trainer does not count as a label
NOT_AVAILABLE = "<na>"


class Examples(ManifestExamples):
    """The rows of a manifest that can be learned from, as ESPnet wants them.

    The text is what OWSM was taught: ``<eng><asr><notimestamps> the words``, given the text
    before it in the same session with probability ``previous_text``.
    """

    def __init__(
        self,
        manifest: Path,
        owsm: Owsm,
        *,
        training: bool,
        text: Literal["raw", "normalized"] = "raw",
        previous_text: float = 0.0,
        limit: int = 0,
        cache_mb: float = 0,
        seed: int = 1,
    ) -> None:
        self._owsm = owsm
        self._normalized = text == "normalized"
        self._before: dict[str, str] = {}  # by utt_id: what was said before it
        self._last: dict[tuple[str | None, str], str] = {}
        self._wants_before = training and previous_text > 0
        self._preprocess = task_class(owsm.family).build_preprocess_fn(
            _preprocessing(owsm, previous_text if training else 0.0), training
        )
        super().__init__(
            manifest,
            owsm.window,
            training=training,
            limit=limit,
            cache_mb=cache_mb,
            seed=seed,
        )

    def load(self, row: Utterance, audio: Samples) -> Example:
        """Return the audio and the three texts of a row, as ESPnet's preprocessor takes them."""
        said = self._text(row)
        marks = self._marks(row.language)
        return {
            "utt_id": row.utt_id,
            "speech": audio,
            # No space between the marks and one behind: anything else is tokenised otherwise.
            "text": f"{marks} {said}" if said else marks,
            "text_prev": self._before.get(row.utt_id, NOT_AVAILABLE),
            "text_ctc": said,
        }

    def fresh(self, example: Example) -> Example:
        """Return padded audio, the samples of padding (``room``) and tokens."""
        texts = {key: value for key, value in example.items() if key != "utt_id"}
        ready: Example = self._preprocess(example["utt_id"], texts)
        return ready | {"room": max(0, self._owsm.samples - len(example["speech"]))}

    def unfit(self, row: Utterance) -> str | None:
        """Return why a row cannot be learned from; ValueError for an unknown language."""
        self._marks(row.language)
        said = self._text(row)
        if any(is_special(word) for word in said.split()):
            return "text holds a special token"
        if self._wants_before and row.session is not None:
            key = (row.speaker, row.session)
            if self._last.get(key):
                self._before[row.utt_id] = self._last[key]
            self._last[key] = said
        if frames_needed(self._owsm.encode(said)) > frames_of(self._owsm, self._owsm.samples):
            return "text of more tokens than the CTC branch has frames"
        return None

    def _marks(self, language: str) -> str:
        owsm = self._owsm
        marks = owsm.symbol(language) + owsm.symbol("asr")
        if owsm.family == "ctc":
            return marks
        return marks + str(owsm.arguments.preprocessor_conf["notime_symbol"])

    def _text(self, row: Utterance) -> str:
        return normalize_text(row.text or "") if self._normalized else (row.text or "").strip()


def _preprocessing(owsm: Owsm, previous_text: float) -> Namespace:
    """Return the checkpoint's arguments with the traps of its preprocessor closed."""
    conf = dict(owsm.arguments.preprocessor_conf)
    # It would draw silence when batches are read ahead, so that a resumed run is another one;
    # the model draws it instead.
    conf |= {"speech_init_silence": 0.0, "text_prev_apply_prob": previous_text}
    if owsm.family == "aed":
        # Below 1 it puts <notimestamps> into texts without asking whether it is there.
        conf["time_apply_prob"] = 1.0
    else:
        conf["lang_apply_prob"] = 1.0
    return Namespace(**{**vars(owsm.arguments), "preprocessor_conf": conf})


def frames_needed(tokens: list[int]) -> int:
    """Return the least frames in which CTC can say ``tokens``: equal neighbours need a blank.

    >>> frames_needed([7, 7, 8])
    4
    """
    return len(tokens) + sum(left == right for left, right in itertools.pairwise(tokens))


def frames_of(owsm: Owsm, samples: int) -> int:
    """Return how many frames of the encoder begin within ``samples``."""
    return -(-samples // samples_per_frame(owsm))


def samples_per_frame(owsm: Owsm) -> int:
    """Return how many samples one frame of the encoder stands for."""
    conf = owsm.arguments.encoder_conf
    factors = {"conv2d1": 1, "conv2d2": 2, "conv2d": 4, "conv2d6": 6, "conv2d8": 8}
    layer = conf.get("input_layer", "conv2d")
    if layer not in factors:
        raise ValueError(f"input_layer is {layer!r}, must be one of: {', '.join(factors)}")
    hop: int = owsm.arguments.frontend_conf["hop_length"]
    return hop * factors[layer]


class Collator:
    """Examples to one batch through ESPnet's collation, with the labels that are counted."""

    def __init__(self, owsm: Owsm, *, fit: bool = False) -> None:
        self._fit = fit  # to the longest clip, in place of the window
        self._collate = task_class(owsm.family).build_collate_fn(owsm.arguments, True)
        self._label = "text" if owsm.family == "aed" else "text_ctc"

    def __call__(self, examples: list[Example]) -> dict[str, torch.Tensor]:
        """Return speech (B, samples), text, text_prev and text_ctc (B, L), padded with -1, all
        with ``_lengths``, room (B,), and labels (B, L), padded with -100."""
        room = torch.tensor([one["room"] for one in examples])
        rest = [{key: value for key, value in one.items() if key != "room"} for one in examples]
        _, batch = self._collate([(str(index), one) for index, one in enumerate(rest)])
        if self._fit:
            longest = int((batch["speech_lengths"] - room).max())
            cut = batch["speech"].shape[1] - max(longest, SAMPLE_RATE // 2)
            if cut > 0 and int(room.min()) >= cut:
                batch["speech"] = batch["speech"][:, :-cut]
                batch["speech_lengths"] = batch["speech_lengths"] - cut
                room = room - cut
        batch["room"] = room
        labels = batch[self._label]
        inside = torch.arange(labels.shape[1]) < batch[f"{self._label}_lengths"][:, None]
        batch["labels"] = labels.masked_fill(~inside, IGNORE)
        ready: dict[str, torch.Tensor] = batch
        return ready


def words_of_labels(owsm: Owsm, rows: Any) -> list[str]:
    """Return the texts of padded token rows."""
    return [owsm.text(int(index) for index in row[row >= 0]) for row in np.asarray(rows)]
