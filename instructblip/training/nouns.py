"""English nouns beside the world's names: synonyms, groups, words that the world does not have."""

from __future__ import annotations

# What people also call them, in questions alone: the answers keep the world's names.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "cat": ("kitty", "kitten"), "dog": ("puppy", "doggy"), "rabbit": ("bunny", "hare"), "pig": ("piggy",),
    "cow": ("cattle",), "horse": ("pony",), "turtle": ("tortoise",), "ladybug": ("ladybird",),
    "frog": ("toad",), "mouse": ("rat",), "panda": ("panda bear",), "snake": ("serpent",),
    "chili pepper": ("chilli", "hot pepper", "pepper"), "corn cob": ("corn", "ear of corn", "maize"),
    "eggplant": ("aubergine",), "mushroom": ("toadstool",), "cherry": ("pair of cherries",),
    "hamburger": ("burger", "cheeseburger"), "doughnut": ("donut",), "cookie": ("biscuit",),
    "ice cream": ("ice cream cone",), "birthday cake": ("cake",), "pizza": ("slice of pizza", "pizza slice"),
    "car": ("automobile",), "bicycle": ("bike",), "airplane": ("plane", "aeroplane", "aircraft"),
    "sailboat": ("sailing boat", "boat"), "helicopter": ("chopper",), "fire engine": ("fire truck", "lorry"),
    "palm tree": ("palm",), "light bulb": ("lightbulb", "bulb"), "clock": ("alarm clock",),
    "scissors": ("pair of scissors",), "violin": ("fiddle",), "shoe": ("sneaker",), "hat": ("cap",),
    "T-shirt": ("shirt", "tee shirt", "tshirt"), "glasses": ("spectacles", "pair of glasses"),
    "dress": ("gown",), "umbrella": ("brolly",), "camera": ("photo camera",), "bus": ("coach",),
    "circle": ("disc", "disk", "round shape"), "rectangle": ("box", "oblong"), "oval": ("ellipse",),
    "diamond": ("rhombus",), "cross": ("plus", "plus sign"), "ring": ("hoop", "donut shape"),
    "heart": ("heart shape",), "star": ("star shape",), "square": ("square shape",),
}  # fmt: skip
# A synonym that could be understood as another name of the world, where that is in the scene.
CLASHES: dict[str, tuple[str, ...]] = {
    "box": ("square",), "oblong": ("oval",), "disc": ("ring",), "disk": ("ring",), "round shape": ("ring", "oval"),
    "palm": ("tree",),
}  # fmt: skip
COLOUR_SYNONYMS: dict[str, tuple[str, ...]] = {
    "gray": ("grey",), "purple": ("violet",), "teal": ("turquoise", "cyan"), "gold": ("golden",),
    "beige": ("cream", "sand coloured"), "pink": ("rosy",),
}  # fmt: skip
# Each as (one, with its article, several).
GROUPS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "thing": (("thing", "something", "things"), ("object", "an object", "objects"), ("item", "an item", "items"),
              ("thing", "a thing", "things"), ("thing", "anything", "things")),
    "animal": (("animal", "an animal", "animals"), ("creature", "a creature", "creatures"),
               ("living creature", "a living creature", "living creatures")),
    "fruit": (("fruit", "a fruit", "fruits"), ("piece of fruit", "a piece of fruit", "pieces of fruit")),
    "vegetable": (("vegetable", "a vegetable", "vegetables"), ("veggie", "a veggie", "veggies")),
    "food": (("food", "food", "food items"), ("food item", "a food item", "food items"),
             ("thing to eat", "something to eat", "things to eat"), ("edible thing", "anything edible", "edible things")),
    "vehicle": (("vehicle", "a vehicle", "vehicles"), ("means of transport", "a means of transport", "means of transport")),
    "plant": (("plant", "a plant", "plants"),),
    "instrument": (("instrument", "an instrument", "instruments"),
                   ("musical instrument", "a musical instrument", "musical instruments")),
    "clothing": (("piece of clothing", "a piece of clothing", "pieces of clothing"), ("clothing item", "clothing", "clothes"),
                 ("thing to wear", "something to wear", "things to wear")),
    "shape": (("shape", "a shape", "shapes"), ("shape", "a shape", "shapes"),
              ("geometric shape", "a geometric shape", "geometric shapes")),
    "letter": (("letter", "a letter", "letters"),),
    "digit": (("number", "a number", "numbers"), ("digit", "a digit", "digits")),
}  # fmt: skip
# Other words of a question, by what they mean; answers have the key's own.
WORDS: dict[str, tuple[str, ...]] = {
    "biggest": ("biggest", "largest", "biggest"), "smallest": ("smallest", "tiniest", "littlest"),
    "most left": ("leftmost",), "most right": ("rightmost",), "most top": ("topmost", "highest", "uppermost"),
    "most bottom": ("lowest", "bottommost"), "bigger": ("bigger", "larger", "bigger"),
    "smaller": ("smaller", "smaller", "littler"),
    "left": ("on the left", "on the left", "on the left side", "to the left", "at the left"),
    "right": ("on the right", "on the right", "on the right side", "to the right", "at the right"),
    "top": ("at the top", "at the top", "on top", "on the top"),
    "bottom": ("at the bottom", "at the bottom", "on the bottom"),
    "to the left of": ("to the left of", "left of", "on the left of", "on the left side of"),
    "to the right of": ("to the right of", "right of", "on the right of", "on the right side of"),
    "above": ("above", "above", "over", "higher than"), "below": ("below", "below", "under", "beneath", "lower than"),
    **{
        f"at the {a} {b}": (f"at the {a} {b}", f"at the {a} {b}", f"in the {a} {b} corner", f"in the {a} {b}", f"in the {c} {b}", f"on the {a} {b}")
        for a, c in (("top", "upper"), ("bottom", "lower")) for b in ("left", "right")
    },
    "in the middle": ("in the middle", "in the middle", "in the centre", "in the center", "at the center"),
}  # fmt: skip
# Answers that a question's type alone decides.
SAID: dict[str, str] = {
    "hello": "Hello! Ask me about the picture.",
    "who": "I am a small model that answers questions about pictures.",
    "can": "I can name the things in the picture, their colours, places and number.",
    "thanks": "You are welcome!",
    "bye": "Goodbye!",
    "cannot_see": "I cannot tell that from the picture.",
    "cannot_do": "I can only answer questions about the picture.",
    "gibberish": "I only understand English and Chinese.",
    "word": "I do not know that word.",
    "hue_unknown": "I only know the colours of shapes, letters and numbers.",
    "else": "Nothing else.",
}
# Words that the world does not have; the second list is for the test. They stay out of the
# Q-Former's vocabulary, so that any other strange word looks like them: a row of pieces.
_STRANGE = (
    "zebra giraffe tiger fox wolf bear camel kangaroo eagle parrot pigeon peacock dinosaur dragon spider ant dolphin shark "
    "goat deer donkey hen rooster swan seal lizard crocodile worm unicorn table chair sofa bed door window house bridge "
    "mountain river moon sun cloud snowman fridge television computer laptop phone keyboard cup mug plate bowl spoon fork "
    "knife bottle milk bread rice noodle egg cheese sausage sandwich grape peach plum melon tomato potato onion cucumber "
    "garlic train subway motorcycle truck van tank scooter piano flute harp ball football balloon gift coin pencil ruler boy "
    "girl man woman baby doctor teacher policeman king queen hand foot eye ear mouth sock glove scarf trousers jacket belt "
    "cube sphere spiral trapezoid octagon wheel rope ladder bucket broom candle lamp mirror carpet curtain pillow blanket "
    "robot ghost alien witch angel crown sword shield flag tent ship anchor lighthouse windmill church castle tower statue "
    "fountain road street forest beach island desert volcano rainbow snowflake flame leaf grass seed root branch feather"
)
_STRANGE_TEST = (
    "gorilla hippo rhino squirrel hedgehog bat snail beaver otter walrus ostrich wardrobe desk shelf oven toaster printer "
    "teapot chopstick tofu dumpling pancake pretzel mango coconut pumpkin celery taxi submarine canoe skateboard harmonica "
    "cello kite eraser soldier pirate nose tongue tie necklace cone cylinder parallelogram waterfall lightning comet "
    "palace stadium elevator escalator bench swing fence well axe saw drill"
)
STRANGE, STRANGE_TEST = _STRANGE.split(), _STRANGE_TEST.split()
