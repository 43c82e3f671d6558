"""From utterances to rows: the part of decoding that is the same for every recogniser.

Files are read and guarded by threads while the model works; windows are batched by length;
their results are put together to one row per utterance, whatever goes wrong with one of them.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from msgspec.structs import replace

from manifests import Hypothesis, NBest, Seconds, Utterance, Word
from systems.batching import Batcher, bucket_of, run_halving
from systems.guard import Window, read_windows


@dataclass(frozen=True)
class Ranked:
    """A hypothesis of one window and what the decoder ranks it by (higher is better)."""

    hypothesis: Hypothesis
    rank: float


DecodeBatch = Callable[[Sequence[Window], Seconds], Sequence[Sequence[Ranked]]]
"""Windows of one bucket and its length -> for each its hypotheses, best first, times from 0."""

SILENCE = (Ranked(Hypothesis(text="", words=()), 0.0),)
"""What is heard in a window without any speech."""


@dataclass(frozen=True)
class StreamConfig:
    """How audio is windowed and batched for one recogniser."""

    system: str
    buckets: tuple[Seconds, ...]  # ascending encoder windows; the last one cuts long audio
    nbest: int
    batch_seconds: Seconds
    max_batch: int
    silence_dbfs: float
    threads: int = 4
    read_ahead: Seconds = 900.0  # audio in memory ahead of the model: 58 MB


def decode_stream(
    utterances: Sequence[Utterance], decode_batch: DecodeBatch, config: StreamConfig
) -> Iterator[NBest]:
    """Yield exactly one row per utterance, in the order in which they are finished.

    Longest first: what does not fit into memory shows at once, and the rest goes ever faster.
    """
    batcher: Batcher[_Item] = Batcher(config.batch_seconds, config.max_batch)

    def finish(bucket: Seconds, items: Sequence[_Item]) -> Iterator[NBest]:
        def run(part: Sequence[_Item]) -> Sequence[Sequence[Ranked] | Exception]:
            return decode_batch([item.window for item in part], bucket)

        results = run_halving(items, run, lambda _, error: error)
        for item, result in zip(items, results, strict=True):
            if item.parts.add(item.window.index, result):
                yield item.parts.row(config)

    for utterance, windows in _read_all(utterances, config):
        if isinstance(windows, Exception):
            yield error_row(utterance.utt_id, config.system, windows)
            continue
        parts = _Parts(utterance.utt_id, [window.start for window in windows])
        for window in windows:
            if window.silent:
                if parts.add(window.index, SILENCE):
                    yield parts.row(config)
                continue
            bucket = bucket_of(window.seconds, config.buckets)
            full = batcher.add(_Item(window, parts), bucket)
            if full is not None:
                yield from finish(*full)
    for bucket, items in batcher.rest():
        yield from finish(bucket, items)


def error_row(utt_id: str, system: str, error: Exception | str) -> NBest:
    """Return the row of an utterance that could not be decoded."""
    reason = str(error) or type(error).__name__
    return NBest(utt_id=utt_id, system=system, hyps=(Hypothesis(text=""),), error=reason)


def join_windows(parts: Sequence[Sequence[Ranked]], nbest: int) -> list[Ranked]:
    """Return the ``nbest`` best combinations of one hypothesis from each window, best first.

    Texts are joined by a space; ranks, scores and word lists add up; a text occurs once.

    >>> one = [Ranked(Hypothesis(text="a"), -1.0), Ranked(Hypothesis(text="b"), -2.0)]
    >>> [ranked.hypothesis.text for ranked in join_windows([one, one], 3)]
    ['a a', 'a b', 'b a']
    """
    joined = list(parts[0][:nbest])
    for part in parts[1:]:
        # A stable sort: of equal ranks the combination of the better first part leads.
        pairs = itertools.product(joined, part[:nbest])
        best = sorted(pairs, key=lambda pair: -(pair[0].rank + pair[1].rank))
        distinct: dict[str, Ranked] = {}
        for left, right in best:
            ranked = Ranked(_join(left.hypothesis, right.hypothesis), left.rank + right.rank)
            distinct.setdefault(ranked.hypothesis.text, ranked)
            if len(distinct) == nbest:
                break
        joined = list(distinct.values())
    return joined


@dataclass
class _Parts:
    """What has been heard of one utterance, window by window."""

    utt_id: str
    starts: Sequence[Seconds]

    def __post_init__(self) -> None:
        self._heard: dict[int, Sequence[Ranked] | Exception] = {}

    def add(self, index: int, heard: Sequence[Ranked] | Exception) -> bool:
        """Store a window's result; return whether it was the last one."""
        self._heard[index] = heard
        return len(self._heard) == len(self.starts)

    def row(self, config: StreamConfig) -> NBest:
        """Return the utterance's row; one failed window makes it an error."""
        parts = []
        for index, start in enumerate(self.starts):
            heard = self._heard[index]
            if isinstance(heard, Exception):
                return error_row(self.utt_id, config.system, heard)
            parts.append([Ranked(_shift(one.hypothesis, start), one.rank) for one in heard])
        hyps = tuple(ranked.hypothesis for ranked in join_windows(parts, config.nbest))
        return NBest(utt_id=self.utt_id, system=config.system, hyps=hyps)


@dataclass(frozen=True, eq=False)
class _Item:
    window: Window
    parts: _Parts


def _read_all(
    utterances: Sequence[Utterance], config: StreamConfig
) -> Iterator[tuple[Utterance, list[Window] | Exception]]:
    """Yield every utterance, longest first, with its windows or why it cannot be heard.

    Threads read ahead by ``config.read_ahead`` s (libsndfile, soxr and NumPy release the lock).
    """
    order = sorted(utterances, key=lambda utterance: -utterance.duration)
    waiting: deque[tuple[Utterance, Future[list[Window] | Exception]]] = deque()
    ahead = 0.0
    with ThreadPoolExecutor(config.threads, thread_name_prefix="audio") as pool:
        try:
            for utterance in order:
                waiting.append((utterance, pool.submit(_read_one, utterance, config)))
                ahead += utterance.duration
                while ahead > config.read_ahead:
                    first, future = waiting.popleft()
                    ahead -= first.duration
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read_one(utterance: Utterance, config: StreamConfig) -> list[Window] | Exception:
    try:
        return read_windows(utterance, config.buckets[-1], config.silence_dbfs)
    except Exception as error:  # one bad file, however bad, must not end the run
        return error


def _join(left: Hypothesis, right: Hypothesis) -> Hypothesis:
    return Hypothesis(
        text=" ".join(text for text in (left.text, right.text) if text),
        score=_add(left.score, right.score),
        lm_score=_add(left.lm_score, right.lm_score),
        words=None if left.words is None or right.words is None else left.words + right.words,
    )


def _add(left: float | None, right: float | None) -> float | None:
    """Add two scores; a window of silence has none and changes nothing."""
    if left is None or right is None:
        return right if left is None else left
    return round(left + right, 4)  # as both were: the sum has more digits than the scores


def _shift(hypothesis: Hypothesis, seconds: Seconds) -> Hypothesis:
    """Return ``hypothesis`` with its word times ``seconds`` later."""
    if not seconds or not hypothesis.words:
        return hypothesis
    return replace(hypothesis, words=tuple(_later(word, seconds) for word in hypothesis.words))


def _later(word: Word, seconds: Seconds) -> Word:
    if word.start is None or word.end is None:
        return word
    return replace(word, start=round(word.start + seconds, 3), end=round(word.end + seconds, 3))
