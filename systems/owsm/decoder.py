"""One loaded OWSM that turns windows of audio into ranked hypotheses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from manifests import Seconds
from manifests.device import pick_device, pick_precision
from systems.guard import Window
from systems.owsm.cached_decoder import CachedDecoder, Floats
from systems.owsm.checkpoint import Owsm, is_special, load_owsm
from systems.owsm.config import OwsmConfig
from systems.owsm.ctc import BLANK
from systems.owsm.data import NOT_AVAILABLE, frames_of, samples_per_frame
from systems.owsm.hypotheses import Draft, to_hypothesis
from systems.repeats import cut_loops
from systems.stream import Ranked, StreamConfig

if TYPE_CHECKING:
    from torch import Tensor

    from lm.shallow_fusion import WordFusionProcessor
    from systems.owsm.search import Found

_PREFIX = 2  # frames that OWSM-CTC puts before the audio: language and task
_NEVER = -1e4  # ln probability of what must not be heard


class Decoder(Protocol):
    """What `systems.stream` needs."""

    def stream_config(self) -> StreamConfig: ...

    def decode_batch(self, windows: Sequence[Window], bucket: Seconds) -> list[list[Ranked]]: ...


def load_decoder(config: OwsmConfig, checkpoint: str, lm: Path | None = None) -> Decoder:
    """Return the decoder of a checkpoint of either family."""
    settings = config.decode
    if not 1 <= settings.nbest <= settings.beams:
        raise ValueError(
            f"nbest is {settings.nbest}, must lie between 1 and beams ({settings.beams})"
        )
    if not 0 <= settings.ctc_weight <= 1:
        raise ValueError(f"ctc_weight is {settings.ctc_weight:g}, must lie between 0 and 1")
    device = pick_device(config.device)
    owsm = load_owsm(
        checkpoint,
        window=config.window,
        device=device,
        precision=pick_precision(settings.precision, device),
    )
    if owsm.family == "ctc" or settings.ctc_weight == 1:
        return CtcOwsmDecoder(config, owsm, lm)
    return OwsmDecoder(config, owsm, lm)


class _Base:
    """What both families share."""

    def __init__(self, config: OwsmConfig, owsm: Owsm) -> None:
        from systems.owsm.padding import share_padding

        share_padding(owsm.model.encoder)
        self.settings = config.decode
        self.owsm = owsm
        for name in (self.settings.language, self.settings.task):
            if name is not None:  # at once, or every single utterance would fail of it
                owsm.symbol(name)
        self._weight = next(owsm.model.parameters())

    def stream_config(self) -> StreamConfig:
        """Return how audio must be windowed and batched for this model."""
        settings = self.settings
        return StreamConfig(
            system="owsm",
            buckets=(self.owsm.window,),
            nbest=settings.nbest,
            batch_seconds=settings.batch_seconds,
            max_batch=settings.max_batch,
            silence_dbfs=settings.silence_dbfs,
        )

    def _speech(self, windows: Sequence[Window]) -> dict[str, Tensor]:
        """Return the windows padded to the model's, (windows, samples), as it was trained."""
        speech = self._weight.new_zeros(len(windows), self.owsm.samples)
        for row, window in zip(speech, windows, strict=True):
            row[: len(window.samples)] = self._weight.new_tensor(window.samples)
        lengths = speech.new_full((len(windows),), speech.shape[1]).long()
        return {"speech": speech, "speech_lengths": lengths}

    def _marks(self, window: Window) -> list[int]:
        """Return the tokens of language and task."""
        language = self.settings.language or window.utterance.language
        names = (self.owsm.symbol(language), self.owsm.symbol(self.settings.task))
        return [self.owsm.ids[name] for name in names]

    def _frames(self, window: Window, most: int) -> int:
        """Return how many of the encoder's frames hold audio."""
        return max(1, min(frames_of(self.owsm, len(window.samples)), most))


class OwsmDecoder(_Base):
    """OWSM and, if given, an n-gram, ready to decode."""

    def __init__(self, config: OwsmConfig, owsm: Owsm, lm: Path | None = None) -> None:
        from systems.owsm.search import Search
        from systems.owsm.text_mask import text_mask

        super().__init__(config, owsm)
        self._fusion = None if lm is None else self._fuse(lm)
        mask = text_mask(owsm).to(self._weight.device)
        self._search = Search(owsm.model, self.settings, mask, self._fusion)
        before = self.settings.previous_text
        self._before = [owsm.model.sop, *owsm.encode(before)] if before else []

    def decode_batch(self, windows: Sequence[Window], bucket: Seconds) -> list[list[Ranked]]:
        """Return the hypotheses of each window, best first, times from the window's start."""
        import torch

        with torch.inference_mode():
            encoded, _ = self.owsm.model.encode(**self._speech(windows))
            if isinstance(encoded, tuple):  # with what its inner layers hear
                encoded = encoded[0]
            return [self._decode(*pair) for pair in zip(windows, encoded, strict=True)]

    def _decode(self, window: Window, encoded: Tensor) -> list[Ranked]:
        """Return one window's hypotheses; ``encoded`` is (frames, width)."""
        settings = self.settings
        ctc = self.owsm.model.ctc.log_softmax(encoded[None])[0].float()
        heard = ctc[: self._frames(window, len(ctc))]
        primer = self._primer(window)
        if float(heard[:, BLANK].sum().exp()) > settings.blank_threshold:
            drafts = [Draft((), "", 0.0)]
        else:
            limit = max(settings.min_tokens, math.ceil(settings.tokens_per_second * window.seconds))
            drafts = self._drafts(self._search.find(encoded, ctc, primer, limit))
        log_probs = self._force(encoded, primer, drafts)
        frames = heard.cpu().numpy() if settings.word_times else None
        return [
            Ranked(
                to_hypothesis(self.owsm, window, draft, own, frames, self._lm_score(draft)),
                draft.rank,
            )
            for draft, own in zip(drafts, log_probs, strict=True)
        ]

    def _primer(self, window: Window) -> list[int]:
        notime = self.owsm.arguments.preprocessor_conf["notime_symbol"]
        marks = self._marks(window)
        return [*self._before, self.owsm.model.sos, *marks, self.owsm.ids[notime]]

    def _drafts(self, found: Sequence[Found]) -> list[Draft]:
        """Return the hypotheses with loops cut, each text once; silence when there are none."""
        drafts: dict[str, Draft] = {}
        for one in found:
            draft = self._draft(one)
            drafts.setdefault(draft.text, draft)
        return list(drafts.values()) or [Draft((), "", 0.0)]

    def _draft(self, found: Found) -> Draft:
        text = self.owsm.text(found.tokens)
        words = text.split()
        kept = cut_loops(words, self.settings.max_repeats)
        if len(kept) == len(words):
            return Draft(found.tokens, " ".join(words), found.rank)
        text = " ".join(words[index] for index in kept)
        return Draft(tuple(self.owsm.encode(text)), text, found.rank)

    def _force(
        self, encoded: Tensor, primer: Sequence[int], drafts: Sequence[Draft]
    ) -> list[Floats]:
        """Return ln P of each draft's tokens and end, by teacher forcing in one batch."""
        import torch

        eos = self.owsm.model.eos
        longest = max(len(draft.tokens) for draft in drafts)
        rows = [[*draft.tokens, *[eos] * (longest + 1 - len(draft.tokens))] for draft in drafts]
        texts = torch.tensor(rows, device=encoded.device)
        primers = torch.tensor([list(primer)] * len(drafts), device=encoded.device)
        lengths = [len(draft.tokens) + 1 for draft in drafts]
        cached = CachedDecoder(self.owsm.model.decoder, encoded[None])
        return cached.score(primers, texts, lengths)

    def _lm_score(self, draft: Draft) -> float | None:
        if self._fusion is None:
            return None
        return self._fusion.fused([*draft.tokens, self.owsm.model.eos]).lm

    def _fuse(self, lm: Path) -> WordFusionProcessor:
        from lm.ngram import NGram
        from lm.shallow_fusion import WordFusionProcessor, byte_level

        texts = [
            None if is_special(token) else byte_level(token.replace("\u2581", " "))
            for token in self.owsm.tokens
        ]
        return WordFusionProcessor(
            NGram(lm),
            texts,
            eos_id=self.owsm.model.eos,
            prompt_length=0,  # the search sets it
            alpha=self.settings.alpha,
            beta=self.settings.beta,
        )


class CtcOwsmDecoder(_Base):
    """OWSM-CTC, or OWSM's CTC branch alone, through the CTC decoder that all systems share."""

    def __init__(self, config: OwsmConfig, owsm: Owsm, lm: Path | None = None) -> None:
        from systems.ctc import CtcDecoder

        super().__init__(config, owsm)
        self._special = [
            index for index, token in enumerate(owsm.tokens) if is_special(token) and index != BLANK
        ]
        self._ctc = CtcDecoder(
            owsm.tokens,
            BLANK,
            frame_seconds=samples_per_frame(owsm) / 16_000,
            config=config.decode.ctc,
            lm=lm,
            ignore=self._special,
        )

    def decode_batch(self, windows: Sequence[Window], bucket: Seconds) -> list[list[Ranked]]:
        """Return the hypotheses of each window, best first, times from the window's start."""
        import torch

        with torch.inference_mode():
            batch: dict[str, Any] = self._speech(windows)
            if self.owsm.family == "ctc":
                batch |= self._conditions(windows)
            encoded, _ = self.owsm.model.encode(**batch)
            if isinstance(encoded, tuple):
                encoded = encoded[0]
            if self.owsm.family == "ctc":
                encoded = encoded[:, _PREFIX:]
            log_probs = self.owsm.model.ctc.log_softmax(encoded).float()
            # The model says its marks too: where it does, it says no text, so that is a blank.
            # Only to forbid them would have the next likely token heard in their place.
            silent = log_probs[..., [BLANK, *self._special]].logsumexp(dim=-1)
            log_probs[..., self._special] = _NEVER
            log_probs[..., BLANK] = silent
        frames = [self._frames(window, log_probs.shape[1]) for window in windows]
        return self._ctc.decode(log_probs, frames, [window.seconds for window in windows])

    def _conditions(self, windows: Sequence[Window]) -> dict[str, Tensor]:
        """Return what OWSM-CTC hears before each window: its marks, and that nothing was said."""
        import torch

        prefix = torch.tensor([self._marks(window) for window in windows])
        lengths = torch.ones(len(windows), dtype=torch.long)
        conditions = {
            "prefix": prefix,
            "prefix_lengths": 2 * lengths,
            "text_prev": self.owsm.ids[NOT_AVAILABLE] * lengths[:, None],
            "text_prev_lengths": lengths,
        }
        return {name: value.to(self._weight.device) for name, value in conditions.items()}
