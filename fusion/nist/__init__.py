"""NIST's rover to the letter."""
