"""What the speakers of the `mini` corpus say: a small grammar of children's English.

The vocabulary is closed (about 125 words) and the sentences are drawn, so that test sentences
are mostly new combinations of known words.
"""

from __future__ import annotations

import random
import re

# Slots of the templates; a choice may hold slots itself.
SLOTS: dict[str, tuple[str, ...]] = {
    "animal": ("dog", "cat", "duck", "fish", "frog", "horse", "rabbit", "bear", "cow", "bird"),
    "animals": ("dogs", "cats", "ducks", "frogs", "birds", "mice", "sheep"),
    "body": ("teeth", "feet", "hands", "eyes"),
    "toy": ("ball", "doll", "car", "train", "kite", "robot", "book", "boat", "puzzle"),
    "food": ("apples", "cake", "soup", "milk", "bread", "bananas", "cookies"),
    "colour": ("red", "blue", "green", "yellow", "black", "white"),
    "size": ("big", "little"),
    "who": ("mommy", "daddy", "grandma", "my brother", "my sister", "the teacher", "the baby"),
    "thing": ("{toy}", "{toy}", "{animal}"),
    "went": ("went", "ran", "came"),
    "where": ("home", "to school", "to the park", "outside", "upstairs"),
    "lost": ("broke", "threw", "found", "drew", "caught", "likes", "wants"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    "does": ("jump", "swim", "sing", "sleep"),
}

TEMPLATES = (
    "{who} {went} {where}",
    "the {animal} {went} {where}",
    "my {animal} {went} outside",
    "{who} {lost} the {toy}",
    "{who} {lost} my {colour} {toy}",
    "I {lost} a {colour} {toy}",
    "{who} ate my {food}",
    "the {animal} ate the {food}",
    "I have {number} {animals}",
    "the {animal} has {number} {body}",
    "my {body} are {size}",
    "look at my {size} {toy}",
    "the {animal} is {colour}",
    "my {toy} is {colour} and {colour}",
    "where is my {thing}",
    "I want the {colour} {toy}",
    "can I have some {food}",
    "I don't like {food}",
    "the {animal} can {does}",
    "the {thing} fell down",
    "we play with the {toy} at school",
    "I see {number} {colour} {animals}",
    "it's my {toy}",
    "yes please",
    "thank you {who}",
    "no I don't want it",
)

COUNTING = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# Overregularised forms, as children make them (Marcus et al., 1992, "Overregularization in
# language acquisition"); transcribers keep them.
SLIPS = {
    "went": "goed",
    "ran": "runned",
    "came": "comed",
    "ate": "eated",
    "fell": "falled",
    "broke": "breaked",
    "threw": "throwed",
    "found": "finded",
    "drew": "drawed",
    "caught": "catched",
    "teeth": "tooths",
    "feet": "foots",
    "mice": "mouses",
    "sheep": "sheeps",
}

# Respellings for the synthesiser, which would read "goed" as one syllable.
SPOKEN = {"goed": "go-ed"}

# Sounds that come late: w for r and l, stops for th, lost clusters. The transcript keeps the word.
LATE_SOUNDS = {
    "rabbit": "wabbit",
    "red": "wed",
    "three": "free",
    "thank": "fank",
    "train": "twain",
    "robot": "wobot",
    "bread": "bwed",
    "brother": "bwuvver",
    "frog": "fwog",
    "green": "gween",
    "yellow": "lellow",
    "little": "wittle",
    "school": "kool",
    "sleep": "seep",
    "grandma": "gwamma",
}


def sentence(rng: random.Random, slip: float) -> str:
    """Draw a sentence; each irregular form is overregularised with probability ``slip``."""
    if rng.random() < 0.06:  # counting, from anywhere
        start = rng.randrange(len(COUNTING) - 3)
        return " ".join(COUNTING[start : start + rng.randint(3, 4)])
    text = rng.choice(TEMPLATES)
    while match := re.search(r"\{(\w+)\}", text):
        text = text[: match.start()] + rng.choice(SLOTS[match[1]]) + text[match.end() :]
    words = text.split()
    return " ".join(SLIPS[w] if w in SLIPS and rng.random() < slip else w for w in words)


def spoken(rng: random.Random, text: str, *, late_sounds: float, repeats: float) -> str:
    """Return ``text`` as the synthesiser must read it.

    ``late_sounds`` is how many of a speaker's difficult words come out changed; with
    probability ``repeats`` the first word is said twice.
    """
    words = []
    for word in text.split():
        late = LATE_SOUNDS.get(word)
        words.append(late if late and rng.random() < late_sounds else SPOKEN.get(word, word))
    if words and rng.random() < repeats:
        words.insert(0, words[0])
    return " ".join(words)
