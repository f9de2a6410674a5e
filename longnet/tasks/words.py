"""Words: adjectives and nouns for keys, made-up words for counting, UUIDs, numbers and names."""

from __future__ import annotations

import numpy as np

from longnet.tasks.draw import Draw


def listed(text: str) -> list[str]:
    """The words of a text, or what stands between its bars."""
    return text.replace("\n", "").split("|") if "|" in text else text.split()


ADJECTIVES = listed("""
able ancient ample bitter blue bold brave bright brisk broad broken calm careful cheap clean clear
clever cloudy cold common cool crisp curious damp dark deep dense distant double dry dull dusty
eager early easy empty equal exact faint fair false famous fancy fast fierce final fine firm flat
fond formal free fresh full gentle giant glad golden good grand grave great green grey happy hard
harsh heavy hollow huge humble hungry icy idle keen kind large late lazy lean light little lively
local lonely long loose loud loyal lucky main mild modern modest muddy narrow nasty neat nervous
new noble noisy odd old open orange pale patient perfect plain polite poor proud pure purple quick
quiet rapid rare raw ready rich ripe rough round royal rusty sad safe salty sharp shiny short shy
silent silver simple slow small smart smooth soft solid sour spare spicy steady steep stiff
strange strict strong sudden sunny sweet swift tall tame tender thick thin tidy tiny tired tough
vague vast violet vivid warm weak weary wet white whole wide wild wise wooden yellow young
""")

NOUNS = listed("""
acorn actor almond anchor ankle answer apple apron arch arrow attic author autumn axle badge
bakery balcony ball bank banner barn barrel basin basket beach beacon bean bear bed bee bell belt
bench berry bicycle bird blanket board boat bone book boot border bottle bowl box branch bread
brick bridge broom brush bucket button cabin cable cake camel camera candle canoe canyon carpet
carrot cart castle cat cave cedar ceiling cellar chain chair chalk cherry chest chimney circle
citizen clock cloth cloud coast coat coin collar comb compass copper coral corner cotton court
cousin cradle crane creek cricket crow crown cup curtain cushion dairy daisy dance dawn desert
desk diamond dinner ditch doctor dog donkey door dove dragon drawer dream dress drum duck eagle
ear earth edge egg elbow elm engine envelope evening eye falcon family farm feather fence fern
ferry field finger fire fish flag flame flute forest fork fountain fox frame frog fruit garden
garlic gate ghost giraffe glass glove goat gold goose grain grape grass guitar hammer harbor hat
hawk hedge helmet hill hinge honey hook horn horse hotel house island ivory jacket jar jewel judge
jungle kettle key king kitchen kite knee knife ladder lake lamp lantern leaf lemon letter library
lily linen lion lizard lock log lunch map maple marble market meadow melon mill minute mirror
monkey moon morning moss mountain mouse museum mustard nail napkin needle nest night nurse oak oar
ocean olive onion orchard otter oven owl oyster paddle palace palm panther paper parcel parrot
path peach pear pearl pebble pencil pepper piano picture pigeon pillow pine pipe pirate plate plum
pocket poem pond pony poplar pot potato prince puzzle quarry queen quilt rabbit railway rain raven
ribbon rice ring river road robin rock roof root rope rose saddle sail salmon salt sand scarf
school seal season shadow sheep shelf shell ship shoe shore shovel silk sister skate sky sled
smoke snail snow soap sofa soil song soup spade spider spoon spring spruce squirrel stable stair
stamp star station statue steam stone storm story stove straw street summer sun swan sweater swing
table tailor tea teacher temple tent theater thread throne thumb thunder tiger toad tomato tooth
torch tower town train tree trumpet tulip tunnel turkey turtle uncle valley vase vest village vine
violin voyage wagon wall walnut water wave wheat wheel whistle willow window winter wolf wool yard
zebra
""")

CITIES = listed("""
Amman Amsterdam Antwerp Athens Baghdad Bamako Bangkok Belgrade Bergen Bogota Bratislava Brussels
Bucharest Cairo Calgary Chicago Colombo Dakar Delhi Dublin Geneva Hanoi Havana Helsinki Istanbul
Jakarta Kigali Kyoto Lagos Lima Lisbon London Madrid Manila Melbourne Montreal Mumbai Nairobi
Naples Osaka Oslo Paris Porto Prague Quito Rabat Reykjavik Riga Rome Santiago Sarajevo Seattle
Seoul Sofia Stockholm Sydney Tallinn Tashkent Tokyo Toronto Tunis Vienna Warsaw Zagreb
""")

KEYS = len(ADJECTIVES) * len(NOUNS)
_SYLLABLES = [c + v for c in "bdfghjklmnprstvz" for v in "aeiou"]
MADE_UP = len(_SYLLABLES) ** 3
NUMBERS = 9_000_000


def key(index: int) -> str:
    """Key number `index` of `KEYS`: an adjective and a noun with a hyphen."""
    first, second = divmod(index, len(NOUNS))
    return f"{ADJECTIVES[first]}-{NOUNS[second]}"


def made_up(index: int) -> str:
    """Word number `index` of `MADE_UP`: three syllables, six letters; none holds another."""
    first, rest = divmod(index, len(_SYLLABLES) ** 2)
    second, third = divmod(rest, len(_SYLLABLES))
    return _SYLLABLES[first] + _SYLLABLES[second] + _SYLLABLES[third]


def seven_digits(draw: Draw, count: int) -> list[str]:
    """`count` numbers of seven digits, the first not 0."""
    return [str(n) for n in draw.integers(1_000_000, 10_000_000, count).tolist()]


def uuids(draw: Draw, count: int) -> list[str]:
    """`count` random UUIDs, version 4, as text."""
    words = draw.words(2 * count)
    high = (words[::2] & np.uint64(0xFFFFFFFFFFFF0FFF)) | np.uint64(0x4000)
    low = (words[1::2] & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
    texts = (f"{a:016x}{b:016x}" for a, b in zip(high.tolist(), low.tolist(), strict=True))
    return [f"{t[:8]}-{t[8:12]}-{t[12:16]}-{t[16:20]}-{t[20:]}" for t in texts]


def letters(draw: Draw, count: int, size: int, first: str) -> list[str]:
    """`count` different words of `size` random letters; `first` is "a" or "A"."""
    base = ord(first)
    words = []
    for index in draw.sample(26**size, count).tolist():
        word = bytearray(size)
        for place in reversed(range(size)):
            index, digit = divmod(index, 26)
            word[place] = base + digit
        words.append(word.decode())
    return words
