"""TDT and RNN-T heads: NeMo's own searches, with word times, confidences and the n-gram.

Greedy (NeMo's greedy_batch) carries NeMo's token confidences; beam search (malsd_batch, arXiv
2506.00185) carries the n-best list, whose posteriors are the words' confidences. NeMo itself
cannot give confidences with a beam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.ngram import NGram, words_of
from manifests import Hypothesis, Seconds, Word
from systems.align import timed_word
from systems.confidence import aggregate
from systems.ctc_tree import BOUNDARY
from systems.nemo.config import DecodeConfig
from systems.stream import Ranked

if TYPE_CHECKING:
    from torch import Tensor


class TransducerDecoder:
    """The search of a model's transducer head over encoder frames."""

    def __init__(
        self, model: Any, frame_seconds: Seconds, config: DecodeConfig, lm: Path | None = None
    ) -> None:
        if not 1 <= config.nbest <= config.transducer_beams and config.method == "beam":
            raise ValueError(
                f"nbest is {config.nbest}, must lie between 1 and transducer_beams "
                f"({config.transducer_beams})"
            )
        if config.hotwords:
            raise ValueError("hotwords are given, must be none for a transducer head")
        if config.method == "greedy" and lm is not None:
            raise ValueError("method is 'greedy', must be 'beam' with an n-gram")
        self._model = model
        self._frame_seconds = frame_seconds
        self._config = config
        self._ngram = None if lm is None else NGram(lm, config.oov_penalty)
        self._tokens = list(model.joint.vocabulary)
        self._unknown = getattr(model.tokenizer, "unk_id", None)
        _set_strategy(model, config)

    def decode(
        self, encoded: Tensor, frames: Tensor, seconds: Sequence[Seconds]
    ) -> list[list[Ranked]]:
        """Return the hypotheses of each utterance, best first; ``encoded`` is (B, D, T)."""
        found = self._model.decoding.rnnt_decoder_predictions_tensor(
            encoder_output=encoded, encoded_lengths=frames, return_hypotheses=True
        )
        results = []
        for hyps, lasts in zip(found, seconds, strict=True):
            nbest = hyps if isinstance(hyps, list) else [hyps]
            results.append(self._ranked(nbest, lasts))
        return results

    def _ranked(self, nbest: Sequence[Any], seconds: Seconds) -> list[Ranked]:
        ranked: dict[str, Ranked] = {}
        for hyp in nbest:
            one = self._hypothesis(hyp, seconds)
            if one.hypothesis.text not in ranked:
                ranked[one.hypothesis.text] = one
        order = sorted(ranked.values(), key=lambda one: -one.rank)[: self._config.nbest]
        # What is heard as silence stays it, whatever an n-gram would add.
        first = next(iter(ranked.values()))
        if not first.hypothesis.text:
            return [first]
        return order if self._config.method == "greedy" else _with_posteriors(order)

    def _hypothesis(self, hyp: Any, seconds: Seconds) -> Ranked:
        config = self._config
        tokens, starts = _numbers(hyp.y_sequence), _numbers(hyp.timestamp)
        lasting = _numbers(hyp.token_duration) or [1] * len(tokens)
        sure = hyp.token_confidence or [None] * len(tokens)
        words: list[tuple[str, int, int, list[float]]] = []
        for token, start, frames, confidence in zip(tokens, starts, lasting, sure, strict=True):
            if token == self._unknown:
                continue
            piece = self._tokens[token]
            if piece.startswith(BOUNDARY) or not words:
                words.append(("", start, start + 1, []))
            letters = piece.replace(BOUNDARY, "")
            text, first, end, values = words[-1]
            if not letters:
                continue
            first = start if not text else first
            more = [] if confidence is None else [min(max(float(confidence), 0.0), 1.0)]
            words[-1] = (text + letters, first, max(end, start + max(frames, 1)), [*values, *more])
        spoken = [word for word in words if word[0]]
        text = " ".join(word[0] for word in spoken)
        score = min(float(hyp.score), 0.0)
        lm_score = None if self._ngram is None else self._ngram.score_text(text)
        rank = score
        if lm_score is not None:
            rank += config.alpha * lm_score + config.beta * len(words_of(text))
        hypothesis = Hypothesis(
            text=text,
            score=round(score, 4),
            lm_score=None if lm_score is None else round(lm_score, 4),
            words=tuple(
                timed_word(
                    word,
                    first * self._frame_seconds,
                    end * self._frame_seconds,
                    aggregate(values, config.confidence.aggregation) if values else None,
                    audio=seconds,
                )
                for word, first, end, values in spoken
            ),
        )
        return Ranked(hypothesis, rank)


def _with_posteriors(ranked: Sequence[Ranked]) -> list[Ranked]:
    """Return the hypotheses with a posterior for each word: that of all that say it there."""
    peak = max(one.rank for one in ranked)
    weights = [math.exp(one.rank - peak) for one in ranked]
    total = sum(weights)

    def posterior(word: Word) -> float:
        share = sum(
            weight
            for weight, other in zip(weights, ranked, strict=True)
            if any(_same_place(word, one) for one in other.hypothesis.words or ())
        )
        return round(min(share / total, 1.0), 4)

    results = []
    for one in ranked:
        hyp = one.hypothesis
        words = tuple(
            Word(text=word.text, start=word.start, end=word.end, confidence=posterior(word))
            for word in hyp.words or ()
        )
        again = Hypothesis(text=hyp.text, score=hyp.score, lm_score=hyp.lm_score, words=words)
        results.append(Ranked(again, one.rank))
    return results


def _same_place(word: Word, other: Word) -> bool:
    """Return whether two words are the same one, heard at overlapping times."""
    assert word.start is not None
    assert word.end is not None
    assert other.start is not None
    assert other.end is not None
    return word.text == other.text and word.start <= other.end and other.start <= word.end


def _numbers(values: Any) -> list[int]:
    """Return a tensor's or an array's numbers as Python's own."""
    return [int(value) for value in values.tolist()] if values is not None else []


def _set_strategy(model: Any, config: DecodeConfig) -> None:
    import copy

    from omegaconf import open_dict

    settings = copy.deepcopy(model.cfg.decoding)
    sure = config.confidence
    with open_dict(settings):
        settings.strategy = "greedy_batch" if config.method == "greedy" else "malsd_batch"
        settings.compute_timestamps = False  # sticky in NeMo; times are made from the tokens'
        settings.preserve_alignments = False
        settings.greedy = {
            "max_symbols": config.transducer_max_symbols,
            "use_cuda_graph_decoder": model.device.type == "cuda",
        }
        settings.beam = {
            "beam_size": config.transducer_beams,
            "max_symbols": config.transducer_max_symbols,
            "return_best_hypothesis": False,
            "score_norm": False,  # scores stay ln P
            "allow_cuda_graphs": model.device.type == "cuda",
        }
        settings.confidence_cfg = {
            "preserve_frame_confidence": config.method == "greedy",
            "preserve_token_confidence": config.method == "greedy",
            "preserve_word_confidence": False,
            "exclude_blank": True,
            "aggregation": sure.aggregation,
            "method_cfg": {
                "name": "max_prob" if sure.measure == "max_prob" else "entropy",
                "entropy_type": "tsallis" if sure.measure == "max_prob" else sure.measure,
                "alpha": sure.alpha,
                "entropy_norm": sure.norm,
            },
        }
    hybrid = {"decoder_type": "rnnt"} if hasattr(model, "ctc_decoder") else {}
    model.change_decoding_strategy(settings, verbose=False, **hybrid)
