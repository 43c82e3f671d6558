"""ESPnet's beam search for one utterance, with its flaws mended and its work done once.

Against ESPnet's `Speech2Text`: the primer is no longer counted as CTC output, the number of
tokens is limited without giving up early stopping, a search ends when no running hypothesis can
enter the n-best list any more, and the word n-gram that all recognisers share is a scorer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from espnet.nets.batch_beam_search import BatchBeamSearch, BatchHypothesis
from espnet.nets.ctc_prefix_score import CTCPrefixScoreTH
from espnet.nets.scorer_interface import BatchScorerInterface
from espnet.nets.scorers.ctc import CTCPrefixScorer
from espnet.nets.scorers.length_bonus import LengthBonus

from manifests import LogProb
from systems.owsm.cached_decoder import CachedDecoder
from systems.owsm.config import DecodeConfig
from systems.owsm.ctc import BLANK

if TYPE_CHECKING:
    from torch import Tensor

    from lm.shallow_fusion import WordFusionProcessor


@dataclass(frozen=True)
class Found:
    """A hypothesis as searched."""

    tokens: tuple[int, ...]  # without primer and end
    rank: float  # what the search orders by
    scores: dict[str, LogProb]  # of each scorer, unweighted


class Search(BatchBeamSearch):  # type: ignore[misc]
    """Beam search over one utterance's encoded audio."""

    def __init__(
        self,
        model: Any,
        config: DecodeConfig,
        mask: Tensor,
        fusion: WordFusionProcessor | None = None,
    ) -> None:
        scorers = {
            "decoder": DecoderScorer(model.decoder, mask),
            "ctc": PrimedCtc(model.ctc, model.eos, self),
            "length_bonus": LengthBonus(model.vocab_size),
            "ngram": None if fusion is None else NgramScorer(fusion, model.vocab_size),
        }
        weights = {
            "decoder": 1 - config.ctc_weight,
            "ctc": config.ctc_weight,
            "length_bonus": config.length_bonus,
            "ngram": 0.0 if fusion is None else 1.0,
        }
        super().__init__(
            scorers=scorers,
            weights=weights,
            beam_size=config.beams,
            vocab_size=model.vocab_size,
            sos=model.sos,
            eos=model.eos,
            pre_beam_score_key="full",
            normalize_length=config.normalize_length,
        )
        self._nbest = config.nbest
        self._fusion = fusion
        self._limit = 1
        # Then a hypothesis' score can only fall, as each scorer's is a log-probability.
        self._only_falls = (
            config.length_bonus <= 0
            and not config.normalize_length
            and (fusion is None or fusion.beta <= 0)
        )

    def find(self, encoded: Tensor, ctc: Tensor, primer: Sequence[int], limit: int) -> list[Found]:
        """Return the n-best list of encoded audio, (frames, width), best first.

        ``ctc`` is its CTC log-probabilities, (frames, vocabulary); ``limit`` the most tokens.
        """
        self.set_hyp_primer(list(primer))
        self._limit = max(1, min(limit, len(encoded) - 1))
        if "ctc" in self.part_scorers:
            self.part_scorers["ctc"].log_probs = ctc
        if self._fusion is not None:
            self._fusion.set_begin_index(len(primer))
        found = self(x=encoded)[: self._nbest]
        return [self._found(hypothesis, len(primer)) for hypothesis in found]

    def _found(self, hypothesis: Any, primed: int) -> Found:
        tokens = hypothesis.yseq[primed:].tolist()
        rank = float(hypothesis.score)
        if self.normalize_length:
            rank /= len(hypothesis.yseq) - 1
        scores = {name: float(score) for name, score in hypothesis.scores.items()}
        return Found(tuple(tokens[:-1]), rank, scores)

    def post_process(
        self,
        i: int,
        maxlen: int,
        minlen: int,
        maxlenratio: float,
        running_hyps: Any,
        ended_hyps: list[Any],
    ) -> Any:
        """Move what has ended aside; nothing goes on at the limit or when nothing can win."""
        running = super().post_process(
            i, min(maxlen, self._limit), minlen, maxlenratio, running_hyps, ended_hyps
        )
        if self._only_falls and len(running) and len(ended_hyps) >= self._nbest:
            ended = sorted((float(one.score) for one in ended_hyps), reverse=True)
            if ended[self._nbest - 1] >= float(running.score.max()):
                return BatchHypothesis()
        return running


class DecoderScorer(BatchScorerInterface):  # type: ignore[misc]
    """The decoder, its projections of the audio computed once; marks are never said."""

    def __init__(self, decoder: Any, mask: Tensor) -> None:
        self._decoder = decoder
        self._mask = mask
        self._cached: CachedDecoder | None = None

    def batch_init_state(self, x: Tensor) -> None:
        self._cached = CachedDecoder(self._decoder, x[None])

    def batch_score(self, ys: Tensor, states: list[Any], xs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return ln P(next token), (hypotheses, vocabulary), and each hypothesis' state."""
        assert self._cached is not None
        if states[0] is None:
            log_probs, state = self._cached.start(ys)
        else:
            log_probs, state = self._cached.step(ys[:, -1], torch.stack(states, dim=2))
        return (log_probs + self._mask).to(xs.dtype), list(state.unbind(dim=2))


class PrimedCtc(CTCPrefixScorer):  # type: ignore[misc]
    """ESPnet's CTC prefix scorer without the primer.

    The original takes <sos><eng><asr><notimestamps> for three tokens that CTC has said, so that
    nothing can be heard in the first three frames.
    """

    def __init__(self, ctc: Any, eos: int, search: Search) -> None:
        super().__init__(ctc, eos)
        self._search = search
        self.log_probs: Tensor | None = None

    def batch_init_state(self, x: Tensor) -> None:
        assert self.log_probs is not None
        frames = torch.tensor([len(self.log_probs)])
        self.impl = CTCPrefixScoreTH(self.log_probs[None], frames, BLANK, self.eos)

    def batch_score_partial(self, y: Tensor, ids: Tensor, state: Any, x: Tensor) -> Any:
        """Return ln P(prefix + token) - ln P(prefix) for ``ids`` and the states after them."""
        primed = len(self._search.hyp_primer) - 1
        return super().batch_score_partial(y[:, primed:], ids, state, x)


class NgramScorer(BatchScorerInterface):  # type: ignore[misc]
    """The word n-gram at word boundaries, weighted."""

    def __init__(self, fusion: WordFusionProcessor, vocabulary: int) -> None:
        self._fusion = fusion
        self._vocabulary = vocabulary

    def batch_score(self, ys: Tensor, states: list[Any], xs: Tensor) -> tuple[Tensor, list[None]]:
        """Return what each next token adds, (hypotheses, vocabulary)."""
        nothing = xs.new_zeros(len(ys), self._vocabulary)
        return self._fusion(ys, nothing), [None] * len(ys)
