"""One member's transcript for each utterance: by confidence, by kind, or by a learned ranking."""
