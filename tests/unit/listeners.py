"""Members of known faults, and what was really said, for tests of tuning."""

import random

from fusion.pool import Ballot
from fusion.tuning.climb import development
from manifests import Hypothesis, NBest, Utterance

SENTENCE = "the a cat dog bird house ran saw big red my goed sat on under tree ball"
WORDS = SENTENCE.split()


def some_words(rng):
    return " ".join(rng.choices(WORDS, k=rng.randint(2, 7)))


def corpus(utterances=80, speakers=8, seed=1, say=some_words, ids="u{:03}"):
    """What several speakers ``say``."""
    rng = random.Random(seed)
    return {
        ids.format(n): Utterance(
            utt_id=ids.format(n),
            audio_filepath="x.flac",
            duration=2.0,
            text=say(rng),
            speaker=f"s{n % speakers}",
        )
        for n in range(utterances)
    }


def listener(references, rate, seed):
    """A member that hears each word wrong with probability ``rate``, and doubts what is wrong."""
    rng = random.Random(seed)
    rows = []
    for utt_id, row in references.items():
        words = row.text.split()
        heard = [w if rng.random() > rate else rng.choice(WORDS) for w in words]
        wrong = sum(a != b for a, b in zip(words, heard, strict=True))
        hyps = [Hypothesis(text=" ".join(heard), score=-0.5 - wrong)]
        for _ in range(2):
            other = [w if rng.random() > rate else rng.choice(WORDS) for w in heard]
            hyps.append(Hypothesis(text=" ".join(other), score=hyps[-1].score - 1.0))
        rows.append(NBest(utt_id=utt_id, system="s", hyps=tuple(hyps)))
    return rows


def dev_of(references, members):
    ballots = [Ballot(rows[0].utt_id, rows) for rows in zip(*members.values(), strict=True)]
    return development(tuple(members), ballots, references)


REFERENCES = corpus()
MEMBERS = {f"m{n}": listener(REFERENCES, 0.25, n) for n in range(3)}
