"""The children's n-gram: build it, query it, fuse it into a search, rescore with it."""

from lm.ngram import NGram, Perplexity
from lm.shallow_fusion import WordFusionProcessor

__all__ = ["NGram", "Perplexity", "WordFusionProcessor"]
