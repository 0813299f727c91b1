"""The words of the quickstart's small world, as plain tables.

A concept is named by its first word; the other words of its line mean the same. Everything else in this
folder speaks of concepts and leaves the choice among synonyms to the moment of speaking.
"""


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text."""
    return tuple(text.split())


def _groups(text: str) -> dict[str, tuple[str, ...]]:
    """Read lines of synonyms, blanks apart ("_" stands for a blank inside a word), by their first word."""
    rows = [tuple(word.replace("_", " ") for word in line.split()) for line in text.strip().splitlines()]
    return {row[0]: row for row in rows}


def _table(text: str) -> dict[str, tuple[str, ...]]:
    """Read lines "name: word word ..." into name → words."""
    rows = [line.split(":") for line in text.strip().splitlines()]
    return {name.strip(): tuple(word.replace("_", " ") for word in members.split()) for name, members in rows}


WOMEN = words("Anna Clara Diana Emma Flora Greta Helen Irene Julia Karen Laura Maria Nora Olga Paula Rosa")
MEN = words("Adam Ben Carl David Erik Frank Georg Henry Ivan Jacob Karl Leon Martin Oscar Peter Simon")
NAMES = WOMEN + MEN

# kind → its members: every member is one of its kind.
PEOPLE = _table("""
musician: violinist drummer pianist singer flutist cellist
scientist: chemist biologist physicist astronomer geologist
worker: carpenter mason plumber welder tailor blacksmith
athlete: runner swimmer boxer skier cyclist wrestler
caterer: baker butcher chef confectioner
official: judge mayor minister inspector
""")
CREATURES = _table("""
bird: sparrow crow owl duck goose swan eagle robin
insect: bee beetle wasp moth cricket
fish: trout salmon carp herring eel
pet: dog cat hamster parrot rabbit
farm_animal: cow pig goat donkey hen
""")
THINGS = _table("""
vehicle: car truck bicycle bus tractor van
fruit: apple pear plum cherry peach lemon
vegetable: carrot onion potato cabbage turnip leek
tool: hammer saw shovel wrench axe drill
instrument: violin flute drum trumpet guitar harp
flower: rose tulip lily daisy violet
garment: coat hat shirt scarf glove skirt
toy: doll ball kite puzzle robot
container: box basket bottle bucket barrel
piece_of_furniture: chair table sofa bench wardrobe
""")
THINGS = {kind.replace("_", " "): words for kind, words in THINGS.items()}
CREATURES = {kind.replace("_", " "): words for kind, words in CREATURES.items()}
KINDS = PEOPLE | CREATURES | THINGS
KIND_OF = {word: kind for kind, words in KINDS.items() for word in words}

NOUN_SYNONYMS = _groups("""
car automobile
sofa couch
bicycle bike
hen chicken
coat jacket
""")

# verb → what it is done to: people, creatures, or kinds of things ("things" is any).
VERBS_TO_PEOPLE = _groups("""
help assist
thank
call phone
invite
greet welcome
praise compliment
ignore overlook
visit
hug embrace
push shove
follow
watch observe
answer
warn alert
""")
VERBS_TO_CREATURES = _groups("""
feed
chase pursue
catch capture
find discover
rescue save
watch observe
frighten scare
draw sketch
""")
VERBS_TO_THINGS = _groups("""
buy purchase
repair fix
wash clean
hide conceal
lose misplace
lift raise
throw toss
carry
borrow
paint
examine inspect
break smash
steal
want desire
photograph
find discover
""")
VERBS_ALONE = _groups("""
sleep
walk
speak talk
laugh
cry
work
dance
sing
wait
fall
swim
pray
""")
VERBS_OF_FOOD = {"cook": ("cook", "prepare")}
# general verb → its special manners.
MANNERS = _table("""
walk: stroll march limp wander
speak: whisper shout mumble
laugh: giggle chuckle
cry: sob weep
cook: bake roast fry boil
""")
MANNER_OF = {word: general for general, words in MANNERS.items() for word in words}
VERBS_OF_MIND = _groups("""
love adore
hate detest
accept
refuse reject
remember recall
forget
trust
distrust mistrust
""")
OPPOSITE_VERBS = {"love": "hate", "accept": "refuse", "remember": "forget", "trust": "distrust"}
OPPOSITE_VERBS |= {right: left for left, right in OPPOSITE_VERBS.items()}
# what the giver does, what the receiver does.
TRANSFERS = (("sell", "buy"), ("lend", "borrow"), ("give", "receive"), ("rent", "hire"))

ADJECTIVES_OF_PEOPLE = _groups("""
happy glad cheerful
sad unhappy
rich wealthy
poor penniless
strong powerful
weak feeble
brave courageous
timid fearful
polite courteous
rude impolite
sick ill
healthy well
angry furious
calm
famous well-known
unknown
young youthful
elderly aged
tired weary
awake
asleep
""")
ADJECTIVES_OF_THINGS = _groups("""
big large
small little
new
old ancient
clean spotless
dirty filthy
wet soaked
dry
heavy
light
expensive costly
cheap inexpensive
pretty beautiful
ugly
red
blue
green
yellow
white
black
""")
COLOURS = ("red", "blue", "green", "yellow", "white", "black")
OPPOSITES_OF_PEOPLE = {
    "happy": "sad",
    "rich": "poor",
    "strong": "weak",
    "brave": "timid",
    "polite": "rude",
    "sick": "healthy",
    "angry": "calm",
    "famous": "unknown",
    "young": "elderly",
    "awake": "asleep",
}
OPPOSITES_OF_PEOPLE |= {right: left for left, right in OPPOSITES_OF_PEOPLE.items()}
OPPOSITES_OF_THINGS = {
    "big": "small",
    "new": "old",
    "clean": "dirty",
    "wet": "dry",
    "heavy": "light",
    "expensive": "cheap",
    "pretty": "ugly",
}
OPPOSITES_OF_THINGS |= {right: left for left, right in OPPOSITES_OF_THINGS.items()}
# Adjectives that may stand before a noun: "the asleep baker" is no English.
BEFORE_PEOPLE = words("happy sad rich poor strong weak brave polite rude angry famous young elderly tired")
BEFORE_THINGS = words("big small new old clean dirty heavy expensive cheap pretty ugly red blue green white")
# comparative of each dimension, and its converse.
COMPARISONS = (
    ("taller", "shorter"),
    ("older", "younger"),
    ("faster", "slower"),
    ("stronger", "weaker"),
    ("richer", "poorer"),
    ("louder", "quieter"),
)

PLACES = _table("""
indoors: in_the_kitchen in_the_library in_the_cellar in_the_attic in_the_museum in_the_classroom in_the_workshop
outdoors: in_the_garden in_the_forest on_the_beach in_the_meadow by_the_river on_the_hill in_the_orchard
""")  # noqa: E501
PLACE_SYNONYMS = {"indoors": ("indoors", "inside"), "outdoors": ("outdoors", "outside")}
INDOORS_OR_OUT = {place: general for general, places in PLACES.items() for place in places}
TIMES = (
    "on Monday",
    "on Tuesday",
    "on Friday",
    "on Sunday",
    "in the morning",
    "in the evening",
    "at noon",
    "at night",
    "after lunch",
    "in winter",
    "in spring",
)
NUMBERS = words("zero one two three four five six seven eight nine")

SYNONYMS = (
    NOUN_SYNONYMS
    | VERBS_TO_PEOPLE
    | VERBS_TO_CREATURES
    | VERBS_TO_THINGS
    | VERBS_ALONE
    | VERBS_OF_FOOD
    | VERBS_OF_MIND
    | ADJECTIVES_OF_PEOPLE
    | ADJECTIVES_OF_THINGS
    | PLACE_SYNONYMS
)
