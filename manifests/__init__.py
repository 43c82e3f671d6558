"""What was said and what was heard: rows, files, corpora, audio. The bottom layer."""

from manifests.jsonl import (
    RowError,
    RowWriter,
    part_path,
    read_manifest,
    read_nbest,
    read_rows,
    recover_part,
    write_atomic,
    write_rows,
)
from manifests.rows import (
    AGE_BUCKETS,
    AgeBucket,
    Hypothesis,
    LogProb,
    NBest,
    Seconds,
    Utterance,
    Word,
    age_bucket,
)
from manifests.text import normalize_text

__all__ = [
    "AGE_BUCKETS",
    "AgeBucket",
    "Hypothesis",
    "LogProb",
    "NBest",
    "RowError",
    "RowWriter",
    "Seconds",
    "Utterance",
    "Word",
    "age_bucket",
    "normalize_text",
    "part_path",
    "read_manifest",
    "read_nbest",
    "read_rows",
    "recover_part",
    "write_atomic",
    "write_rows",
]
