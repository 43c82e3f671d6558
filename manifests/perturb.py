"""A manifest and each of its utterances once more, slower and faster: the same words, more voices.

    python -m manifests.perturb train.jsonl --factors 0.9 1.1 --out perturbed.jsonl

writes the rows as they are, then each once per factor, with 16 kHz FLAC files in the folder
``perturbed`` beside --out:

    {"utt_id":"000010011-sp1.1","speaker":"0001","duration":2.345,...}

At 1.1 times the speed all frequencies are a tenth higher too, as from a shorter vocal tract (Ko
et al., 2015, "Audio Augmentation for Speech Recognition", Interspeech). The speaker stays the
same, so that `manifests.split --check` still sees who is on two sides; perturb after splitting,
and what is trained on alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import msgspec

from manifests.jsonl import read_manifest, write_rows
from manifests.rows import Utterance
from manifests.split import moved

_CHUNK = 64  # clips made side by side; rows stream


def perturb(manifest: Path, factors: Sequence[float], out: Path, jobs: int = 1) -> int:
    """Write all rows and the changed ones, with their audio, to ``out``; return how many.

    ValueError for factors that are equal, 1 or outside [0.5, 2]; its `manifests.audio.AudioError`
    for audio that cannot be read, as prepared audio always can.
    """
    for factor in factors:
        if not 0.5 <= factor <= 2 or factor == 1:
            raise ValueError(f"factor is {factor:g}, must be in [0.5, 2] and not 1")
    if len(set(factors)) < len(factors):
        raise ValueError(f"factors are {' '.join(f'{f:g}' for f in factors)}, must all differ")

    def rows() -> Iterator[Utterance]:
        yield from moved(manifest, out.parent)
        with ThreadPoolExecutor(jobs) as pool:  # codec and resampler work outside Python's lock
            for factor in factors:
                change = partial(_changed, factor=factor, folder=out.with_suffix(""))
                stream = read_manifest(manifest)
                while chunk := list(islice(stream, _CHUNK)):
                    yield from pool.map(change, chunk)

    return write_rows(out, rows(), meta={"manifest": str(manifest), "factors": list(factors)})


def _changed(row: Utterance, factor: float, folder: Path) -> Utterance:
    """Return a row whose audio, written now, is ``factor`` times as fast."""
    from manifests.audio import SAMPLE_RATE, load_audio
    from manifests.flac import clip_path, write_flac

    mark = f"-sp{factor:g}"
    utt_id = row.utt_id + mark
    # Fewer samples a second, played at the old rate.
    rate = round(SAMPLE_RATE / factor)
    samples = load_audio(row.audio_filepath, row.offset, row.duration, rate)
    path = folder / clip_path(utt_id)
    write_flac(samples, path)
    return msgspec.structs.replace(
        row,
        utt_id=utt_id,
        session=None if row.session is None else row.session + mark,
        audio_filepath=path.relative_to(folder.parent).as_posix(),
        offset=0.0,
        duration=len(samples) / SAMPLE_RATE,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m manifests.perturb",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--factors", type=float, nargs="+", default=[0.9, 1.1])
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="files at once")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        count = perturb(args.manifest, args.factors, args.out, args.nj)
    except (ValueError, OSError) as error:
        print(f"manifests.perturb: {error}", file=sys.stderr)
        return 1
    print(f"{count} rows in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
