"""Any audio to 16 kHz mono FLAC: parallel, resumable, atomic; damage is a result, not an error.

An utterance's file is ``FOLDER/xx/UTT_ID.flac``, xx from a hash of the id, so that a million
files do not share one folder. It is complete when the index (``FOLDER/index.jsonl``, appended
as results come) knows it with the same source path, size, modification time and segment, and
the file has the size that the index states. Files are written as ``.part`` and renamed.
"""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import signal
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
import soundfile

from manifests.audio import (
    DURATION_TOLERANCE,
    SAMPLE_RATE,
    AudioError,
    Samples,
    audio_duration,
    load_audio,
)
from manifests.jsonl import naming, part_path
from manifests.rows import Row, Seconds, Utterance, digest_id

_CHUNK = 32  # utterances per task: 1 ms of overhead against 100 ms of work
_LONGEST_NAME = 200  # characters; file systems take 255, endings included
_AHEAD = 4  # tasks per worker that may be under way or waiting to be written in order


class Clip(Row, frozen=True):
    """One line of the index: what was prepared, and from what."""

    utt_id: str
    source: str
    source_size: int  # bytes
    source_mtime_ns: int
    offset: Seconds
    duration: Seconds  # as asked for
    seconds: Seconds  # as it is in the FLAC file
    size: int  # bytes of the FLAC file


class Damaged(NamedTuple):
    """Why an utterance has no audio, as "value, rule"."""

    reason: str


def clip_path(utt_id: str) -> Path:
    """Return where an utterance's audio lies, relative to the folder.

    >>> clip_path("0001-a").as_posix()
    'af/0001-a.flac'
    """
    stem = utt_id if len(utt_id) <= _LONGEST_NAME else digest_id(utt_id, utt_id)
    return Path(f"{zlib.crc32(utt_id.encode()) & 0xFF:02x}") / f"{stem}.flac"


def prepare_clip(row: Utterance, target: Path) -> Clip | Damaged:
    """Write one utterance's audio to ``target``.

    Raises OSError when ``target`` cannot be written: that is no fault of the utterance.
    """
    try:
        stat = Path(row.audio_filepath).stat()
        samples = _load(row)
    except AudioError as error:
        return Damaged(str(error).removeprefix(f"{row.audio_filepath}: "))
    except OSError as error:
        return Damaged(f"{error.strerror or error}, must be readable")
    size = write_flac(samples, target)
    return Clip(
        utt_id=row.utt_id,
        source=row.audio_filepath,
        source_size=stat.st_size,
        source_mtime_ns=stat.st_mtime_ns,
        offset=row.offset,
        duration=row.duration,
        seconds=len(samples) / SAMPLE_RATE,
        size=size,
    )


def write_flac(samples: Samples, target: Path) -> int:
    """Write 16 kHz audio atomically, folders included; return the file's size in bytes."""
    # Encoded in memory: a full disk is then an OSError, not libsndfile's "System error".
    flac = io.BytesIO()
    soundfile.write(flac, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        part_path(target).write_bytes(flac.getbuffer())
    except OSError as error:
        raise naming(error, target) from None
    part_path(target).replace(target)
    return flac.getbuffer().nbytes


def _load(row: Utterance) -> Samples:
    """Read a row's segment; a row that covers its file to within 0.1 s is the whole file."""
    whole = audio_duration(row.audio_filepath)
    if row.offset == 0 and math.isclose(whole, row.duration, abs_tol=DURATION_TOLERANCE):
        return load_audio(row.audio_filepath)
    return load_audio(row.audio_filepath, row.offset, row.duration)


def prepare_clips(
    rows: Iterable[Utterance], folder: Path, jobs: int = 1
) -> Iterator[tuple[Utterance, Clip | Damaged]]:
    """Yield every row, in order, with its prepared clip or why there is none.

    ``audio_filepath`` must be absolute. Ids must be unique. ``jobs`` processes decode; when one
    dies (a decoder's crash, out of memory) the utterance it died of is `Damaged`. Raises OSError
    when ``folder`` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _Index(folder / "index.jsonl") as index, _Pool(jobs) as pool:
        tasks: deque[_Task] = deque()
        stream = iter(rows)
        while True:
            while len(tasks) < jobs * _AHEAD and (chunk := list(islice(stream, _CHUNK))):
                done = {row.utt_id: clip for row in chunk if (clip := index.get(row, folder))}
                todo = [(row, folder / clip_path(row.utt_id)) for row in chunk]
                todo = [item for item in todo if item[0].utt_id not in done]
                tasks.append(_Task(chunk, done, todo, pool.submit(todo) if todo else None))
            if not tasks:
                return
            task = tasks.popleft()
            results: dict[str, Clip | Damaged] = dict(task.done)
            if task.future is not None:
                fresh = pool.result(task.future, task.todo)
                index.add(clip for clip in fresh if isinstance(clip, Clip))
                results.update(
                    (row.utt_id, clip) for (row, _), clip in zip(task.todo, fresh, strict=True)
                )
            for row in task.rows:
                yield row, results[row.utt_id]


Work = list[tuple[Utterance, Path]]


class _Task(NamedTuple):
    """Some consecutive rows: what is known of them already, and what is being made."""

    rows: list[Utterance]
    done: dict[str, Clip]
    todo: Work
    future: Future[list[Clip | Damaged]] | None


class _Index:
    """What is complete in a folder; the last line of an utterance counts."""

    def __init__(self, path: Path) -> None:
        decode = msgspec.json.Decoder(Clip).decode
        self._clips: dict[str, Clip] = {}
        data = path.read_bytes() if path.exists() else b""
        for line in data.splitlines():
            with suppress(msgspec.DecodeError):  # torn by a kill: its file is made again
                clip = decode(line)
                self._clips[clip.utt_id] = clip
        self._file = path.open("ab")
        if data and not data.endswith(b"\n"):
            self._file.write(b"\n")

    def get(self, row: Utterance, folder: Path) -> Clip | None:
        """Return a row's clip if it is complete and its source has not changed."""
        clip = self._clips.get(row.utt_id)
        if clip is None:
            return None
        try:
            source = os.stat(clip.source)  # noqa: PTH116 (a million of them)
            target = os.stat(folder / clip_path(row.utt_id))  # noqa: PTH116
        except OSError:
            return None
        known = (clip.source, clip.source_size, clip.source_mtime_ns, clip.offset, clip.duration)
        found = (row.audio_filepath, source.st_size, source.st_mtime_ns, row.offset, row.duration)
        return clip if known == found and clip.size == target.st_size else None

    def add(self, clips: Iterable[Clip]) -> None:
        self._file.write(msgspec.json.Encoder().encode_lines(list(clips)))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Pool:
    """Worker processes that may die without taking the run with them.

    Each is the only one of its executor: where an executor of several starts a process while
    another of its dies, Python 3.11 may forget to end the new one, and waits for it for ever.
    """

    def __init__(self, jobs: int) -> None:
        self._workers: list[ProcessPoolExecutor | None] = [None] * max(1, jobs)
        self._turn = 0

    def submit(self, work: Work) -> Future[list[Clip | Damaged]]:
        turn = self._turn
        self._turn = (turn + 1) % len(self._workers)
        worker = self._workers[turn]
        if worker is not None:
            with suppress(BrokenProcessPool):
                return worker.submit(_prepare_all, work)
        worker = self._workers[turn] = _executor()
        return worker.submit(_prepare_all, work)

    def result(self, future: Future[list[Clip | Damaged]], work: Work) -> list[Clip | Damaged]:
        """Wait for a task; if its process died, find the culprit by doing one item at a time."""
        with suppress(BrokenProcessPool):
            return future.result()
        results: list[Clip | Damaged] = []
        single = _executor()
        for item in work:
            try:
                results += single.submit(_prepare_all, [item]).result()
            except BrokenProcessPool:
                results.append(Damaged("the process that decoded it died, must be decodable"))
                single = _executor()
        single.shutdown()
        return results

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in filter(None, self._workers):
            worker.shutdown(cancel_futures=True)


def _executor() -> ProcessPoolExecutor:
    # Not fork: this process may have threads (a progress bar's, a trainer's).
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(1, mp_context=context, initializer=_start_worker)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker of a killed parent would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _prepare_all(work: Work) -> list[Clip | Damaged]:
    return [prepare_clip(row, target) for row, target in work]
