"""Text to hide things in: prose from a small grammar, or five sentences again and again."""

from __future__ import annotations

import numpy as np

from longnet.tasks.draw import Draw
from longnet.tasks.words import ADJECTIVES, NOUNS, listed

# The filler of the passkey and RULER papers.
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."

_PEOPLE = listed("""
archivist baker barber blacksmith boatman botanist bricklayer carpenter captain cartographer clerk
composer conductor cook dancer detective engineer farmer fisherman gardener geologist glazier
grocer historian innkeeper interpreter journalist librarian locksmith mason merchant midwife
miller miner musician neighbour painter pharmacist philosopher physician pilot plumber poet porter
postman potter printer professor sailor sculptor shepherd shoemaker singer soldier stranger
student surgeon surveyor violinist watchmaker weaver
""")
_ACTIONS = listed("""
admired bought borrowed carried cleaned counted described discovered drew examined exchanged
followed forgot found guarded inherited inspected kept lifted lost measured mended mentioned moved
noticed opened ordered painted photographed polished preferred praised recognised remembered
repaired replaced returned saw sketched sold studied touched traded visited wanted washed weighed
wrapped
""")
_PLACES = listed("""
across the river|at the edge of town|at the end of the lane|behind the old church|
below the bridge|beside the canal|between two houses|by the harbour wall|in a corner of the attic|
in the back room|in the north of the county|near the railway station|
on the other side of the square|on the top shelf|outside the city gates|over the hill|
under the stairs|upstairs
""")
_TIMES = listed("""
after supper|after the rain|at dusk|before breakfast|before the meeting|during the festival|
early in the morning|every other week|for the second time|in late autumn|in the meantime|
last winter|long ago|on a windy day|on market days|once a year|that evening|the day before|
when nobody was looking|without a word
""")
_THOUGHTS = listed("""
argued|believed|claimed|complained|explained|imagined|insisted|knew|promised|suspected|thought|
wrote
""")
_JOINTS = listed("and|but|because|so|while|although|until|and then")

_SLOTS = 12  # random numbers that one sentence uses
_MEAN_BYTES = 66  # of a sentence with its space, roughly


def sentences(draw: Draw, budget: int) -> list[str]:
    """Sentences of prose; with a space after each they have at most `budget` bytes.

    As many as fit: the next one would not.
    """
    found: list[str] = []
    used = 0
    while True:
        count = max(4, (budget - used) // _MEAN_BYTES)
        numbers = (draw.words(count * _SLOTS) >> np.uint64(32)).reshape(count, _SLOTS)
        for row in numbers.tolist():
            sentence = _sentence(row)
            used += len(sentence) + 1
            if used > budget:
                return found
            found.append(sentence)


def noise(budget: int) -> list[str]:
    """`NOISE` as often as fits in `budget` bytes with a line's end after each."""
    return [NOISE] * max(0, budget // (len(NOISE) + 1))


def _sentence(numbers: list[int]) -> str:
    form, rest = numbers[0] % 5, numbers[1:]
    if form == 0:
        text = f"{_pick(_TIMES, rest[10])}, {_clause(rest)}"
    elif form == 1:
        text = f"{_clause(rest)} {_pick(_TIMES, rest[10])}"
    elif form == 2:
        text = f"{_clause(rest)}, {_pick(_JOINTS, rest[10])} {_clause(rest[5:])}"
    elif form == 3:
        text = f"the {_pick(_PEOPLE, rest[10])} {_pick(_THOUGHTS, rest[9])} that {_clause(rest)}"
    else:
        text = _clause(rest)
    return f"{text[0].upper()}{text[1:]}."


def _clause(n: list[int]) -> str:
    text = f"the {_pick(_PEOPLE, n[0])} {_pick(_ACTIONS, n[1])} {_thing(n[2], n[3])}"
    return text if n[4] % 3 else f"{text} {_pick(_PLACES, n[4] // 3)}"


def _thing(adjective: int, noun: int) -> str:
    article = ("a", "the", "his", "her")[(adjective >> 16) % 4]
    word = _pick(ADJECTIVES, adjective)
    if article == "a" and word[0] in "aeiou":
        article = "an"
    return f"{article} {word} {_pick(NOUNS, noun)}"


def _pick(words: list[str], number: int) -> str:
    return words[number % len(words)]
