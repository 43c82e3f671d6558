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
    Rejected,
    Seconds,
    Utterance,
    Word,
    age_bucket,
    safe_utt_id,
)
from manifests.text import normalize_text

__all__ = [
    "AGE_BUCKETS",
    "AgeBucket",
    "Hypothesis",
    "LogProb",
    "NBest",
    "Rejected",
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
    "safe_utt_id",
    "write_atomic",
    "write_rows",
]
