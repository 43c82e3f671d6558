"""What was said in each slot of a network, when the reference is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusion.voting.tokens import Keys

_TIE = 0.01  # of two slots that could hold a word the one that has more votes for it does


def slot_truth(slots: Sequence[Mapping[str, float]], reference: Keys) -> list[str]:
    """Return what stands in each slot on the cheapest way from the slots to the reference.

    ``slots`` holds each slot's arcs (keys; "" is the null word, "any one" two words) with their
    shares. A slot holds one of its arcs at no cost, or another word or none at the cost of an
    error; words of the reference that find no slot are lost.

    >>> slot_truth([{"a": 1.0}, {"dog": 0.6, "": 0.4}, {"today": 0.7, "to day": 0.0}],
    ...            ("a", "to", "day"))
    ['a', '', 'to day']
    """
    width = len(reference) + 1
    costs = [float(n) for n in range(width)]
    steps: list[list[tuple[int, str | None]]] = []
    for arcs in slots:
        gap = _TIE * (1 - arcs[""]) if "" in arcs else 1.0
        after = [cost + gap for cost in costs]
        step: list[tuple[int, str | None]] = [(n, "") for n in range(width)]
        several = [(tuple(arc.split()), arc) for arc in arcs if " " in arc]
        for n, word in enumerate(reference):
            cost = costs[n] + (_TIE * (1 - arcs[word]) if word in arcs else 1.0)
            if cost < after[n + 1]:
                after[n + 1], step[n + 1] = cost, (n, word)
            for words, arc in several:
                end = n + len(words)
                if reference[n:end] == words and costs[n] + _TIE * (1 - arcs[arc]) < after[end]:
                    after[end], step[end] = costs[n] + _TIE * (1 - arcs[arc]), (n, arc)
        for n in range(1, width):
            if after[n - 1] + 1 < after[n]:
                after[n], step[n] = after[n - 1] + 1, (n - 1, None)
        costs = after
        steps.append(step)
    return _trace(steps, len(reference))


def _trace(steps: Sequence[Sequence[tuple[int, str | None]]], end: int) -> list[str]:
    said: list[str] = []
    for step in reversed(steps):
        while True:
            end, word = step[end]
            if word is not None:
                said.append(word)
                break
    return said[::-1]
