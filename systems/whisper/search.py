"""Beam search with a true n-best list.

``WhisperForConditionalGeneration.generate`` returns its 1-best once for every hypothesis asked
for, and ``GenerationMixin.generate`` keeps every step's scores of the whole vocabulary in memory
to tell the scores of the n-best. This is the latter's algorithm (transformers 5, early_stopping
False), step for step, with the encoder's projections computed once per utterance (see
`systems.whisper.attention`), utterances that are finished taken out of the batch, and the
recogniser's own score kept apart from what processors add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manifests import LogProb

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import EncoderDecoderCache, WhisperForConditionalGeneration

    Processor = Callable[[Tensor, Tensor], Tensor]
    """(tokens so far, (rows, length); log-probabilities, (rows, vocabulary)) -> the latter."""

_NEVER = -1.0e9  # as in transformers; -inf would turn into NaN


@dataclass(frozen=True)
class SearchConfig:
    """How to search."""

    beams: int
    length_penalty: float  # rank = total / length ** length_penalty, the end of text counted
    eos: int
    suppress: tuple[int, ...] = ()  # tokens that are never said
    begin_suppress: tuple[int, ...] = ()  # nor said first


@dataclass(frozen=True)
class Found:
    """A hypothesis as searched."""

    tokens: tuple[int, ...]  # without prompt and end of text
    ended: bool  # False: cut off at the length limit
    score: LogProb  # of the tokens, with the end of text if ended, without processors
    rank: float


@dataclass(frozen=True)
class Heard:
    """What the search found for one utterance."""

    found: tuple[Found, ...]  # best first
    no_speech: float  # P(no speech | start of transcript)
    empty: float  # P(end of text | prompt)


def beam_search(
    model: WhisperForConditionalGeneration,
    cache: EncoderDecoderCache,
    prompts: Tensor,
    limits: Tensor,
    config: SearchConfig,
    *,
    sot_index: int,
    no_speech: int,
    processors: Sequence[Processor] = (),
) -> list[Heard]:
    """Return what is heard in each utterance of a fresh ``cache`` (`Encoded.cache`).

    ``prompts`` is (utterances, prompt length), ``limits`` (utterances,) the most tokens of each,
    the end of text counted; ``sot_index`` says where in the prompt the transcript starts.
    """
    hidden = decoder_states(model, prompts, cache)
    start = model.proj_out(hidden[:, [sot_index, -1]]).float().softmax(dim=-1)
    cache.self_attention_cache.batch_repeat_interleave(config.beams)
    logits = model.proj_out(hidden[:, -1]).float().repeat_interleave(config.beams, dim=0)
    first_mask, later_mask = _masks(config, logits)
    beams = _Beams(limits, config)
    while True:
        raw = logits.log_softmax(dim=-1)
        scores = raw + (later_mask if beams.length else first_mask)
        for processor in processors:
            scores = processor(beams.flat_tokens(), scores)
        origin = beams.step(raw, scores)
        if origin is None:
            break
        kept = beams.shrink()
        if kept is not None:
            cache.cross_attention_cache.batch_select_indices(kept)
            origin = origin.view(-1, config.beams)[kept].flatten()
        # Both at once: the rows that go on, each from the beam that it extends.
        cache.self_attention_cache.batch_select_indices(origin)
        last = beams.flat_tokens()[:, -1:]
        logits = model.proj_out(decoder_states(model, last, cache)[:, -1]).float()
    silent, empty = start[:, 0, no_speech].tolist(), start[:, 1, config.eos].tolist()
    return [Heard(*heard) for heard in zip(beams.results(), silent, empty, strict=True)]


class _Beams:
    """The running and the finished hypotheses of a batch, and the algorithm on them.

    Rows are the utterances that are still searched; columns their beams, best first.
    """

    def __init__(self, limits: Tensor, config: SearchConfig) -> None:
        import torch

        self._config = config
        self.length = 0
        utterances, longest = len(limits), int(limits.max())
        shape = (utterances, config.beams)
        self._index = torch.arange(utterances, device=limits.device)  # in the whole batch
        self._limits = limits
        self._done = torch.zeros_like(limits, dtype=torch.bool)
        self._tokens = limits.new_full((*shape, longest), config.eos)
        self._total = torch.zeros(shape, device=limits.device)
        # All beams are the same at first: only one may go on, or they would stay the same.
        self._total[:, 1:] = _NEVER
        self._score = torch.zeros_like(self._total)
        # Finished ones: tokens, rank, the recogniser's score, number of tokens.
        self._ended = (
            self._tokens.clone(),
            torch.full_like(self._total, _NEVER),
            torch.zeros_like(self._total),
            limits.new_zeros(shape),
        )
        self._results: dict[int, tuple[Found, ...]] = {}

    def flat_tokens(self) -> Tensor:
        """Return the tokens so far, shape (rows * beams, length), without the prompt."""
        return self._tokens[..., : self.length].flatten(0, 1)

    def step(self, raw: Tensor, scores: Tensor) -> Tensor | None:
        """Extend every beam by a token; return the flat beams they extend, None at the end.

        ``raw`` and ``scores`` are log-probabilities before and after processors, shape
        (rows * beams, vocabulary); the search goes by ``scores``.
        """
        import torch

        rows, beams = self._total.shape
        vocabulary = scores.shape[-1]
        totals = (self._total[..., None] + scores.view(rows, beams, vocabulary)).flatten(1)
        # Twice as many, so that enough are left to go on if all beams end here.
        total, flat = totals.topk(2 * beams, dim=-1)
        parent, token = flat // vocabulary, flat % vocabulary
        score = self._score.gather(1, parent) + raw.view(rows, -1).gather(1, flat)
        tokens = _pick(self._tokens, parent)
        tokens[..., self.length] = token
        self.length += 1
        ends = (token == self._config.eos) | (self.length >= self._limits[:, None])
        self._collect(tokens, total, score, ends)
        self._total, order = torch.where(ends, total + _NEVER, total).topk(beams, dim=-1)
        self._tokens, self._score = _pick(tokens, order), score.gather(1, order)
        self._judge(ends)
        if bool(self._done.all()):
            self._store()
            return None
        first = torch.arange(rows, device=order.device)[:, None] * beams
        return (parent.gather(1, order) + first).flatten()

    def _collect(self, tokens: Tensor, total: Tensor, score: Tensor, ends: Tensor) -> None:
        """Keep the best of the finished hypotheses and those that end now."""
        import torch

        beams = self._config.beams
        # Only what ranks among the beams may end: the second half stands by to go on.
        ends_now = ends & ~self._done[:, None]
        ends_now[:, beams:] = False
        rank = total / self.length**self._config.length_penalty
        rank = torch.where(ends_now, rank, rank + _NEVER)
        length = torch.full_like(ends_now, self.length, dtype=torch.long)
        new = (tokens, rank, score, length)
        merged = [torch.cat(pair, 1) for pair in zip(self._ended, new, strict=True)]
        best = merged[1].topk(beams, dim=1)[1]
        kept_tokens, kept_rank, kept_score, kept_length = (_pick(one, best) for one in merged)
        self._ended = (kept_tokens, kept_rank, kept_score, kept_length)

    def _judge(self, ends: Tensor) -> None:
        """Mark the utterances that can no longer improve, or have reached their limit."""
        worst = self._ended[1].amin(1)
        best_possible = self._total[:, 0] / self.length**self._config.length_penalty
        self._done |= (best_possible <= worst) | ends.all(1)
        if self._config.beams == 1:  # greedy: the first end is the end
            self._done |= worst > _NEVER / 2

    def shrink(self) -> Tensor | None:
        """Drop the finished utterances if they are half of all; return the rows kept, or None."""
        if 2 * int(self._done.sum()) < len(self._done):
            return None
        self._store()
        kept = (~self._done).nonzero()[:, 0]
        self._index, self._limits, self._done = (
            tensor[kept] for tensor in (self._index, self._limits, self._done)
        )
        self._tokens, self._total, self._score = (
            tensor[kept] for tensor in (self._tokens, self._total, self._score)
        )
        tokens, rank, score, length = (tensor[kept] for tensor in self._ended)
        self._ended = (tokens, rank, score, length)
        return kept

    def _store(self) -> None:
        """Put the hypotheses of the finished utterances aside."""
        done = self._done.nonzero()[:, 0]
        lists = [tensor[done].tolist() for tensor in (self._index, *self._ended)]
        for index, *hypotheses in zip(*lists, strict=True):
            self._results[index] = tuple(
                self._found(tokens[:length], score, rank)
                for tokens, rank, score, length in zip(*hypotheses, strict=True)
                if rank > _NEVER / 2
            )

    def _found(self, tokens: list[int], score: float, rank: float) -> Found:
        ended = tokens[-1] == self._config.eos
        return Found(tuple(tokens[:-1] if ended else tokens), ended, score, rank)

    def results(self) -> list[tuple[Found, ...]]:
        """Return what was found, in the order of the batch."""
        return [self._results[index] for index in sorted(self._results)]


def _pick(tensor: Tensor, columns: Tensor) -> Tensor:
    """Return each row's ``columns``, shape (rows, n[, length])."""
    if tensor.dim() == 3:
        columns = columns[..., None].expand(-1, -1, tensor.shape[-1])
    return tensor.gather(1, columns)


def decoder_states(
    model: WhisperForConditionalGeneration, tokens: Tensor, cache: EncoderDecoderCache
) -> Tensor:
    """Return the decoder's last hidden states, (rows, length, d_model), and extend ``cache``."""
    keys = cache.cross_attention_cache.layers[0].keys
    hidden: Tensor = model.model.decoder(
        input_ids=tokens,
        encoder_hidden_states=keys,  # only asked whether there are any: the cache is full
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return hidden


def _masks(config: SearchConfig, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is added to the log-probabilities of the first and of the later tokens."""
    import torch

    later = like.new_zeros(like.shape[-1])
    later[list(config.suppress)] = -torch.inf
    first = later.clone()
    first[list(config.begin_suppress)] = -torch.inf
    return first, later
