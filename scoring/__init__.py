"""Normalisers, the competition's metric, sclite, significance and reports."""
