"""One decoder for the CTC log-probabilities of any toolkit.

    decoder = CtcDecoder(tokens, blank, frame_seconds=0.08, config=CtcConfig(), lm=Path("exp/lm"))
    with decoder:
        ranked = decoder.decode(log_probs, frames, seconds)

Greedy or a prefix beam search with the shared word n-gram and hotwords; n-best, word times and
confidences from the same log-probabilities. Only what a search can reach goes to it: frames
in which nothing but the blank is likely are merged, tokens that are likely nowhere are dropped.
Neither changes what it finds (a repeated blank only adds to every beam's score).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice, tee
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from manifests import Hypothesis, Seconds
from systems.align import timed_word
from systems.confidence import aggregate, frame_confidence
from systems.ctc_beam import Beam, BeamSearch, Floats, Job
from systems.ctc_config import CtcConfig
from systems.ctc_tree import BOUNDARY
from systems.stream import Ranked

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_NEVER = -1e4
"""ln probability of a token that must not be heard; finite, since its gradient is never asked."""

_MOST_PROCESSES = 8
_FEW = 4  # utterances that are not worth another process


@dataclass(frozen=True)
class Run:
    """A token on the greedy path and its frames [first, end)."""

    token: int
    first: int
    end: int


class CtcDecoder:
    """Log-probabilities in, hypotheses out.

    ``tokens`` are the model's columns in order, as SentencePiece or the character vocabulary
    writes them; ``blank`` is the column of the blank; columns in ``ignore`` (unknown, special
    tokens) are never heard; ``frame_seconds`` is how far apart the columns' frames lie. ``lm`` is
    a folder made by `lm.train`. ValueError for a config that cannot be.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        blank: int,
        *,
        frame_seconds: Seconds,
        config: CtcConfig,
        lm: Path | None = None,
        ignore: Collection[int] = (),
    ) -> None:
        if not 0 <= blank < len(tokens):
            raise ValueError(f"blank is {blank}, must lie in [0, {len(tokens)})")
        if not 1 <= config.nbest <= config.beams:
            raise ValueError(
                f"nbest is {config.nbest}, must lie between 1 and beams ({config.beams})"
            )
        if config.method == "greedy" and (lm is not None or config.hotwords):
            raise ValueError("method is 'greedy', must be 'beam' with an n-gram or hotwords")
        self._tokens = list(tokens)
        self._tokens[blank] = ""
        self._blank = blank
        self._ignore = sorted(set(ignore) - {blank})
        self._frame_seconds = frame_seconds
        self._config = config
        self._lm = lm
        self._subwords = any(token.startswith(BOUNDARY) for token in tokens)
        self._letters = [
            token.replace(BOUNDARY, "") if self._subwords else token.strip()
            for token in self._tokens
        ]
        self._search: BeamSearch | None = None
        self._pool: ProcessPoolExecutor | None = None
        self._processes = config.processes or min(cores(), _MOST_PROCESSES)

    def decode(
        self, log_probs: Tensor, frames: Sequence[int], seconds: Sequence[Seconds]
    ) -> list[list[Ranked]]:
        """Return the hypotheses of each utterance, best first, times from its start.

        ``log_probs`` is (B, T, V), natural logarithms, on any device; ``frames`` says how many of
        the T are each utterance's, ``seconds`` how long its audio lasts (word times end there).
        What the greedy path hears nothing in stays empty, whatever an n-gram would add.
        """
        import torch

        with torch.inference_mode():
            heard = log_probs.float()
            sure = frame_confidence(heard, self._config.confidence).cpu().numpy()
            if self._ignore:
                heard = heard.clone()
                heard[..., self._ignore] = _NEVER
            paths = [
                self._greedy(path[:count])
                for path, count in zip(heard.argmax(-1).tolist(), frames, strict=True)
            ]
            searched = [
                i
                for i, path in enumerate(paths)
                if self._config.method == "beam" and any(self._letters[run.token] for run in path)
            ]
            others = sorted(set(range(len(paths))) - set(searched))
            scores = self._scores(heard, frames, paths, others)
            results: list[list[Ranked]] = [[] for _ in paths]
            for i, score in zip(others, scores, strict=True):
                results[i] = [self._ranked_greedy(paths[i], score, sure[i], seconds[i])]
            jobs = self._jobs(heard, sure, frames, searched)
            for i, beams in zip(searched, self._search_all(jobs, len(searched)), strict=True):
                results[i] = [self._ranked(beam, seconds[i]) for beam in beams]
        return results

    def _greedy(self, path: Sequence[int]) -> list[Run]:
        """Return the tokens of a best path, repetitions merged and blanks left out."""
        runs: list[Run] = []
        first = 0
        for at in range(1, len(path) + 1):
            if at == len(path) or path[at] != path[first]:
                if path[first] != self._blank:
                    runs.append(Run(path[first], first, at))
                first = at
        return runs

    def _scores(
        self,
        heard: Tensor,
        frames: Sequence[int],
        paths: Sequence[Sequence[Run]],
        wanted: Sequence[int],
    ) -> list[float]:
        """Return ln P(tokens | audio), over all alignments, of the greedy paths ``wanted``."""
        import torch
        from torch.nn import functional

        if not heard.shape[1] or not wanted:
            return [0.0] * len(wanted)
        tokens = [run.token for i in wanted for run in paths[i]]
        losses = functional.ctc_loss(
            (heard if len(wanted) == len(heard) else heard[list(wanted)]).transpose(0, 1),
            torch.tensor(tokens, dtype=torch.long, device=heard.device),
            torch.tensor([frames[i] for i in wanted], dtype=torch.long),
            torch.tensor([len(paths[i]) for i in wanted], dtype=torch.long),
            blank=self._blank,
            reduction="none",
        )
        return [min(-loss, 0.0) for loss in losses.tolist()]

    def _ranked_greedy(
        self, path: Sequence[Run], score: float, sure: Floats, seconds: Seconds
    ) -> Ranked:
        how = self._config.confidence.aggregation
        words: list[tuple[str, list[Run]]] = []
        for run in path:
            token = self._tokens[run.token]
            begins = token.startswith(BOUNDARY) if self._subwords else token == " "
            if begins or not words:
                words.append(("", []))
            letters = self._letters[run.token]
            if letters:
                spelled, runs = words[-1]
                words[-1] = (spelled + letters, [*runs, run])
        found = tuple(
            (
                spelled,
                runs[0].first,
                runs[-1].end,
                aggregate(
                    [aggregate(sure[run.first : run.end].tolist(), how) for run in runs], how
                ),
            )
            for spelled, runs in words
            if spelled
        )
        text = " ".join(spelled for spelled, *_ in found)
        return self._ranked(Beam(text, score, None, score, found), seconds)

    def _jobs(
        self, heard: Tensor, sure: Floats, frames: Sequence[int], wanted: Sequence[int]
    ) -> Iterator[Job]:
        """Yield what a search can reach of each utterance ``wanted``; ``heard`` is (B, T, V)."""
        likely = heard >= self._config.token_min_logp
        # The best of a frame is tried even where it is less likely than that.
        likely.scatter_(2, heard.argmax(-1, keepdim=True), True)
        likely[..., self._blank] = False
        columns = likely.flatten(0, 1).any(0).nonzero()[:, 0]
        log_probs = heard[..., columns].cpu().numpy()
        blanks = heard[..., self._blank].cpu().numpy()
        tried = likely[..., columns].cpu().numpy()
        speeches = likely.any(-1).cpu().numpy()
        tokens = columns.cpu().numpy()
        for i in wanted:
            speech, blank = speeches[i, : frames[i]], blanks[i, : frames[i]]
            kept = np.flatnonzero(speech | np.append(True, speech[:-1]))  # of blanks the first
            reached = np.flatnonzero(tried[i, kept].any(0))
            left_out = blank.sum(dtype=np.float64) - blank[kept].sum(dtype=np.float64)
            yield Job(
                log_probs=log_probs[i][np.ix_(kept, reached)],
                blanks=blank[kept],
                tokens=tokens[reached],
                frames=kept,
                confidence=sure[i, kept],
                left_out=float(left_out),
            )

    def _search_all(self, jobs: Iterator[Job], count: int) -> Iterator[list[Beam]]:
        """Yield what is found in each of ``count`` jobs, searched while others are being made."""
        done = 0
        if self._pool is not None and count >= _FEW:
            jobs, again = tee(jobs)
            # Utterances of one batch are about equally long: a few large parts for each process.
            part = max(1, count // (4 * self._processes))
            try:
                for beams in self._pool.map(_search_one, jobs, chunksize=part):
                    done += 1
                    yield beams
            except BrokenProcessPool:  # and it stays broken: every batch to come would fail
                log.warning("a search process died (of memory?), going on without any")
                self.__exit__()
            jobs = islice(again, done, None)
        if done < count:
            if self._search is None:
                self._search = BeamSearch(*self._searched_with())
            yield from map(self._search, jobs)

    def _searched_with(self) -> tuple[list[str], bool, CtcConfig, Path | None]:
        return self._tokens, self._subwords, self._config, self._lm

    def _ranked(self, beam: Beam, seconds: Seconds) -> Ranked:
        step = self._frame_seconds
        words = tuple(
            timed_word(text, first * step, end * step, confidence, audio=seconds)
            for text, first, end, confidence in beam.words
        )
        hypothesis = Hypothesis(
            text=beam.text,
            score=round(beam.score, 4),
            lm_score=None if beam.lm_score is None else round(beam.lm_score, 4),
            words=words,
        )
        return Ranked(hypothesis, beam.rank)

    def __enter__(self) -> Self:
        """Start the processes; without this the search runs in the caller's own."""
        if self._config.method == "beam" and self._processes > 1:
            # Not forked: this process may hold a GPU and threads in the middle of something.
            self._pool = ProcessPoolExecutor(
                self._processes,
                mp_context=get_context("spawn"),
                initializer=_begin,
                initargs=self._searched_with(),
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_searches: list[BeamSearch] = []


def _begin(tokens: Sequence[str], subwords: bool, config: CtcConfig, lm: Path | None) -> None:
    _searches[:] = [BeamSearch(tokens, subwords, config, lm)]


def _search_one(job: Job) -> list[Beam]:
    return _searches[0](job)
