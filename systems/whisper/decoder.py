"""One loaded Whisper that turns windows of audio into ranked hypotheses."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from manifests import Hypothesis, Seconds
from systems.guard import Window
from systems.repeats import cut_loops
from systems.stream import Ranked, StreamConfig
from systems.whisper.config import DecodeConfig, WhisperConfig
from systems.whisper.hypotheses import Draft, rounded, to_hypothesis
from systems.whisper.rescore import Forced, force
from systems.whisper.search import Found, Heard, SearchConfig, beam_search
from systems.whisper.tokens import Tokens
from systems.whisper.window import POSITIONS_PER_SECOND

if TYPE_CHECKING:
    from torch import Tensor

    from lm.shallow_fusion import WordFusionProcessor
    from systems.whisper.attention import Encoded
    from systems.whisper.search import Processor

BUCKETS: tuple[Seconds, ...] = (2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0)
"""Encoder windows that ``window: auto`` chooses from."""


class WhisperDecoder:
    """A checkpoint and, if given, an n-gram, ready to decode.

    ``seconds`` says what each phase has cost: features, encoder, search, rescoring.
    """

    def __init__(self, config: WhisperConfig, checkpoint: str, lm: Path | None = None) -> None:
        from manifests.device import pick_device, pick_precision
        from systems.whisper.attention import share_cross_attention
        from systems.whisper.checkpoint import load_model
        from systems.whisper.window import window_of

        settings = config.decode
        if not 1 <= settings.nbest <= settings.beams:
            raise ValueError(
                f"nbest is {settings.nbest}, must lie between 1 and beams ({settings.beams})"
            )
        self.settings: DecodeConfig = settings
        self.device = pick_device(config.device)
        self.model, self.processor = load_model(
            checkpoint,
            window=None if config.window == "auto" else config.window,
            device=self.device,
            precision=pick_precision(settings.precision, self.device),
            base=config.base,
        )
        share_cross_attention(self.model)
        longest = window_of(self.model)
        shorter = BUCKETS if config.window == "auto" else ()
        self.buckets = (*(bucket for bucket in shorter if bucket < longest), longest)
        self.tokens = Tokens(self.processor.tokenizer, self.model.generation_config)
        self.seconds = dict.fromkeys(("features", "encoder", "search", "rescoring"), 0.0)
        # At once, or every single utterance would fail of it.
        self.tokens.prefix(settings.language or "en", settings.task)
        self._prompt = self._prompt_tokens()
        self._fusion = None if lm is None else self._fuse(lm)
        self._processors = self._make_processors()

    def stream_config(self) -> StreamConfig:
        """Return how audio must be windowed and batched for this model."""
        settings = self.settings
        return StreamConfig(
            system="whisper",
            buckets=self.buckets,
            nbest=settings.nbest,
            batch_seconds=settings.batch_seconds,
            max_batch=settings.max_batch,
            silence_dbfs=settings.silence_dbfs,
        )

    def decode_batch(self, windows: Sequence[Window], bucket: Seconds) -> list[list[Ranked]]:
        """Return the hypotheses of each window, best first, times from the window's start."""
        import torch

        with torch.inference_mode():
            prompts = self._prompts(windows)
            encoded = self._encode(windows, bucket)
            with self._phase("search"):
                heard = self._search(windows, prompts, encoded)
            drafts = [self._drafts(one) for one in heard]
            forced = self._rescore(windows, prompts, encoded, drafts)
        return [self._ranked(*one) for one in zip(windows, heard, drafts, forced, strict=True)]

    def score_texts(
        self, windows: Sequence[Window], texts: Sequence[Sequence[str]], bucket: Seconds
    ) -> list[list[Hypothesis]]:
        """Return, for each window, its texts in the same order as this model hears them.

        Any system's texts may be given; an empty one is scored as silence.
        """
        import torch

        drafts = [
            [Draft(self.tokens.encode(text), text.strip(), 0.0, None) for text in of_one]
            for of_one in texts
        ]
        with torch.inference_mode():
            prompts = self._prompts(windows)
            encoded = self._encode(windows, bucket)
            forced = self._rescore(windows, prompts, encoded, drafts)
        return [
            [self._hypothesis(window, *pair) for pair in zip(of_one, scores, strict=True)]
            for window, of_one, scores in zip(windows, drafts, forced, strict=True)
        ]

    def _encode(self, windows: Sequence[Window], bucket: Seconds) -> Encoded:
        from systems.whisper.attention import Encoded
        from systems.whisper.features import log_mel
        from systems.whisper.window import shorten

        shorten(self.model, self.processor, bucket)
        with self._phase("features"):
            features = log_mel(
                [window.samples for window in windows],
                self.processor.feature_extractor,
                self.model.device,
            )
        with self._phase("encoder"):
            states = self.model.model.encoder(features.to(self.model.dtype)).last_hidden_state
            return Encoded(self.model.model.decoder, states)

    def _search(self, windows: Sequence[Window], prompts: Tensor, encoded: Encoded) -> list[Heard]:
        settings, generation = self.settings, self.model.generation_config
        room = self.model.config.max_target_positions - prompts.shape[1]
        limits = [
            min(room, max(settings.min_tokens, math.ceil(settings.tokens_per_second * w.seconds)))
            for w in windows
        ]
        return beam_search(
            self.model,
            encoded.cache(),
            prompts,
            prompts.new_tensor(limits),
            SearchConfig(
                beams=settings.beams,
                length_penalty=settings.length_penalty,
                eos=self.tokens.eos,
                suppress=tuple(self.tokens.not_text.union(generation.suppress_tokens or ())),
                begin_suppress=tuple(generation.begin_suppress_tokens or ()),
            ),
            sot_index=prompts[0].tolist().index(self.tokens.sot),
            no_speech=self.tokens.no_speech,
            processors=self._processors,
        )

    def _drafts(self, heard: Heard) -> list[Draft]:
        """Return the hypotheses worth keeping: none for silence, loops cut, each text once."""
        if not heard.found or self._is_silence(heard):
            return []
        drafts: dict[str, Draft] = {}
        for found in heard.found:
            draft = self._draft(found)
            drafts.setdefault(draft.text, draft)
        return list(drafts.values())[: self.settings.nbest]

    def _draft(self, found: Found) -> Draft:
        text = self.tokens.text(found.tokens)
        words = text.split()
        kept = cut_loops(words, self.settings.max_repeats)
        if len(kept) < len(words):
            text = " ".join(words[index] for index in kept)
            return Draft(self.tokens.encode(text), text, found.rank, None)
        return Draft(found.tokens, text, found.rank, found.score if found.ended else None)

    def _is_silence(self, heard: Heard) -> bool:
        """Tell whether the model itself hears no speech.

        Either it would end at once (what fine-tuning on silent clips teaches; the search may not
        say so where the checkpoint suppresses an empty text), or as in openai/whisper the
        <|nospeech|> token is likely and the text is not.
        """
        settings = self.settings
        if heard.empty > settings.no_speech_threshold:
            return True
        best = heard.found[0]
        mean = best.score / (len(best.tokens) + 1)
        return heard.no_speech > settings.no_speech_threshold and mean < settings.logprob_threshold

    def _rescore(
        self,
        windows: Sequence[Window],
        prompts: Tensor,
        encoded: Encoded,
        drafts: Sequence[Sequence[Draft]],
    ) -> list[list[Forced | None]]:
        """Return the teacher-forced scores of the drafts, or None where nothing asks for them."""
        times = self.settings.word_times
        if not any(drafts) or not (times or any(d.score is None for ds in drafts for d in ds)):
            return [[None] * len(of_one) for of_one in drafts]
        positions = [
            max(1, math.ceil(round(window.seconds * POSITIONS_PER_SECOND, 6))) for window in windows
        ]
        with self._phase("rescoring"):
            texts = [[draft.tokens for draft in of_one] for of_one in drafts]
            found = force(self.model, encoded.cache(), prompts, texts, positions if times else None)
        return [list(of_one) for of_one in found]

    def _ranked(
        self,
        window: Window,
        heard: Heard,
        drafts: Sequence[Draft],
        forced: Sequence[Forced | None],
    ) -> list[Ranked]:
        if not drafts:
            score = rounded(math.log(max(heard.empty, heard.no_speech, 1e-30)))
            return [Ranked(Hypothesis(text="", score=score, words=()), score)]
        return [
            Ranked(self._hypothesis(window, draft, one), draft.rank)
            for draft, one in zip(drafts, forced, strict=True)
        ]

    def _hypothesis(self, window: Window, draft: Draft, forced: Forced | None) -> Hypothesis:
        fused = None
        if self._fusion is not None:
            fused = self._fusion.fused([*draft.tokens, self.tokens.eos]).lm
        return to_hypothesis(window, draft, forced, fused, self.tokens)

    def _prompts(self, windows: Sequence[Window]) -> Tensor:
        """Return what the decoder starts from, shape (windows, prompt length)."""
        import torch

        settings = self.settings
        rows = [
            self.tokens.prefix(
                settings.language or window.utterance.language, settings.task, self._prompt
            )
            for window in windows
        ]
        return torch.tensor(rows, device=self.model.device)

    def _prompt_tokens(self) -> list[int]:
        """Return the tokens of the configured prompt: its end, where it is too long."""
        if not self.settings.prompt:
            return []
        most = self.model.config.max_target_positions // 2 - 1  # as in openai/whisper
        return self.tokens.encode(self.settings.prompt)[-most:]

    def _fuse(self, lm: Path) -> WordFusionProcessor:
        from lm.ngram import NGram
        from lm.shallow_fusion import WordFusionProcessor

        return WordFusionProcessor(
            NGram(lm),
            self.tokens.texts,
            eos_id=self.tokens.eos,
            prompt_length=0,  # the search hands over what follows the prompt
            alpha=self.settings.alpha,
            beta=self.settings.beta,
        )

    def _make_processors(self) -> list[Processor]:
        from transformers import NoRepeatNGramLogitsProcessor

        processors: list[Processor] = [] if self._fusion is None else [self._fusion]
        if self.settings.no_repeat_ngram:
            processors.append(NoRepeatNGramLogitsProcessor(self.settings.no_repeat_ngram))
        return processors

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Count the time that the ``with`` block takes."""
        import torch

        started = time.perf_counter()
        yield
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()  # else the time would be counted where it is waited for
        self.seconds[name] += time.perf_counter() - started
