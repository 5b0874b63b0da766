"""How people ask: phrasings for training, and others that only the evaluation uses."""

from __future__ import annotations

PHRASINGS: dict[str, tuple[str, ...]] = {
    "what": (
        "What is this?", "What is in the picture?", "What do you see?", "What's this?",
        "What can you see here?", "Name the thing in the picture.", "What does the picture show?",
        "What is shown here?", "What is the object?",
    ),
    "what_at": (
        "What is {place}?", "What is the thing {place}?", "What do you see {place}?",
        "What's {place}?", "Which object is {place}?", "Name the thing {place}.",
        "What can be seen {place}?", "Tell me what is {place}.",
    ),
    "kind": (
        "What kind of thing is this?", "What kind of thing is in the picture?", "What type of thing is it?",
        "What sort of object is this?", "What kind of object do you see?", "Which kind of thing is shown?",
        "What category is this?", "What kind is it?",
    ),
    "kind_at": (
        "What kind of thing is {place}?", "What type of thing is {place}?", "What sort of object is {place}?",
        "Which kind of thing is {place}?", "What kind of object do you see {place}?",
        "The thing {place} is of what kind?", "What category is the thing {place}?", "What kind is {place}?",
    ),
    "colour": (
        "What colour is the {x}?", "What color is the {x}?", "Which colour does the {x} have?",
        "The {x} is what colour?", "What's the color of the {x}?", "What is the colour of the {x}?",
        "Tell me the colour of the {x}.", "Which color is the {x}?", "In what colour is the {x}?",
    ),
    "colour_follow": (
        "What colour is it?", "And what color is it?", "Which colour does it have?", "What's its color?",
        "What is its colour?", "And its colour?", "Which color is it?", "Tell me its colour.",
    ),
    "what_follow": (
        "What is it?", "And what is it?", "What is it exactly?", "What exactly is it?", "What is its name?",
        "Which thing is it?", "Name it.", "What is that?", "And what is that?",
    ),
    "side": (
        "What is {side}?", "What is the thing {side}?", "Which thing is {side}?", "What do you see {side}?",
        "What's {side} of the picture?", "What is {side} of the picture?", "Name what is {side}.",
        "What stands {side}?", "Which object is furthest {side}?",
    ),
    "side_follow": (
        "And {side}?", "And what is {side}?", "What about {side}?", "And what do you see {side}?",
        "{side}?", "How about {side}?", "Now {side}?", "And the thing {side}?",
    ),
    "count_all": (
        "How many things are there?", "How many objects are in the picture?", "Count the things.",
        "How many things do you see?", "What is the number of objects?", "How many are there?",
        "How many things are in the picture?", "Count the objects in the picture.",
    ),
    "count": (
        "How many {xs} are there?", "How many {xs} do you see?", "Count the {xs}.",
        "How many {xs} are in the picture?", "What is the number of {xs}?", "How many {xs}?",
        "How many {xs} can you see?", "Tell me how many {xs} there are.",
    ),
    "caption": (
        "Describe the picture.", "Give a short caption.", "Caption this picture.", "Write a caption.",
        "What are the things in the picture?", "Which things do you see?", "List the things in the picture.",
        "Describe what you see.", "What things are there?",
        "What is in the picture?", "What do you see?", "What can you see here?", "What does the picture show?",
    ),
    "detail": (
        "Describe the picture in detail.", "Give a detailed description.", "Tell me everything and where it is.",
        "Describe every thing and its place.", "What is where?", "Describe in detail what you see.",
        "Write a detailed caption.", "List all things with their places.",
    ),
    "where": (
        "Where is the {x}?", "Where's the {x}?", "Where can I find the {x}?", "In which place is the {x}?",
        "Where do you see the {x}?", "What is the position of the {x}?", "Tell me where the {x} is.",
        "Where in the picture is the {x}?", "Find the {x}.",
    ),
    "where_follow": (
        "Where is it?", "And where is it?", "Where's that?", "Where can I find it?", "Where do you see it?",
        "And its place?", "What is its position?", "Tell me where it is.",
    ),
    "exists": (
        "Is there {a_x}?", "Is there {a_x} in the picture?", "Do you see {a_x}?", "Can you see {a_x}?",
        "Does the picture show {a_x}?", "Is {a_x} there?", "Can {a_x} be seen?", "Is there {a_x} here?",
    ),
    "exists_follow": (
        "And {a_x}?", "What about {a_x}?", "And is there {a_x}?", "How about {a_x}?", "And do you see {a_x}?",
        "Or {a_x}?", "Also {a_x}?", "Maybe {a_x}?",
    ),
    "relation": (
        "Is the {x} {how} the {y}?", "Is the {x} {how} the {y} here?", "Do you see the {x} {how} the {y}?",
        "Does the {x} stand {how} the {y}?", "Can the {x} be found {how} the {y}?",
        "Would you say the {x} is {how} the {y}?", "The {x} is {how} the {y}, right?",
        "Is it true that the {x} is {how} the {y}?",
    ),
    "relation_follow": (
        "Is it {how} the {y}?", "And is it {how} the {y}?", "Does it stand {how} the {y}?",
        "Is that {how} the {y}?", "Do you see it {how} the {y}?", "It is {how} the {y}, right?",
        "Is it true that it is {how} the {y}?", "Would you say it is {how} the {y}?",
    ),
    "compare": (
        "Which is {how}, the {x} or the {y}?", "What is {how}, the {x} or the {y}?",
        "Is the {x} or the {y} {how}?", "Which one is {how}: the {x} or the {y}?",
        "The {x} or the {y}, which is {how}?", "Of the {x} and the {y}, which is {how}?",
        "Tell me which is {how}, the {x} or the {y}.", "Which of the two is {how}, the {x} or the {y}?",
    ),
}  # fmt: skip

TEST_PHRASINGS: dict[str, tuple[str, ...]] = {
    "what": ("What thing is this?", "Can you tell me what this is?", "What do we see here?", "Which thing is this?", "Tell me what you see."),
    "what_at": ("What do you find {place}?", "Can you tell me what is {place}?", "Which thing can you see {place}?", "What object is {place}?", "What is there {place}?"),
    "kind": ("What kind of object is this?", "Which sort of thing is it?", "What type is this?", "Tell me the kind of thing.", "What kind of thing do you see?"),
    "kind_at": ("What kind of object is {place}?", "Which sort of thing is {place}?", "What type is the thing {place}?", "Tell me the kind of thing {place}.", "What kind of thing do you see {place}?"),
    "colour": ("Can you tell me the colour of the {x}?", "What colour does the {x} have?", "Which is the color of the {x}?", "The colour of the {x}?", "So what color is the {x}?"),
    "colour_follow": ("So what colour is it?", "What color does it have?", "Can you tell me its colour?", "Its color?", "What colour is that?"),
    "what_follow": ("So what is it?", "Can you tell me what it is?", "Tell me what it is.", "And what thing is it?", "What thing is that?"),
    "side": ("What can you see {side}?", "Tell me what is {side}.", "Which object do you see {side}?", "What object is {side}?", "What is there {side}?"),
    "side_follow": ("And what can you see {side}?", "So what is {side}?", "And which thing {side}?", "What is {side}, then?", "And now {side}?"),
    "count_all": ("How many objects are there?", "How many objects do you see?", "Can you count the things?", "Tell me how many things there are.", "What is the number of things?"),
    "count": ("Can you count the {xs}?", "What number of {xs} do you see?", "How many {xs} are here?", "So how many {xs} are there?", "Tell me the number of {xs}."),
    "caption": ("Describe this picture.", "Can you caption the picture?", "Tell me which things you see.", "Which things are in the picture?", "Give a caption."),
    "detail": ("Describe this picture in detail.", "Can you describe all things and their places?", "Give a detailed caption.", "Tell me in detail what you see.", "Which thing is where?"),
    "where": ("Can you tell me where the {x} is?", "Where in this picture is the {x}?", "Where can you see the {x}?", "So where is the {x}?", "Which place is the {x} in?"),
    "where_follow": ("So where is it?", "Where in the picture is it?", "Can you tell me where it is?", "Where can you see it?", "And where's that?"),
    "exists": ("Can you find {a_x}?", "Is there {a_x} in this picture?", "Do we see {a_x} here?", "Can you tell me if there is {a_x}?", "Is {a_x} in the picture?"),
    "exists_follow": ("And can you see {a_x}?", "So what about {a_x}?", "And maybe {a_x}?", "And is {a_x} there?", "And {a_x}, too?"),
    "relation": ("Can you see the {x} {how} the {y}?", "So is the {x} {how} the {y}?", "Is the {x} found {how} the {y}?", "Is the place of the {x} {how} the {y}?", "Tell me, is the {x} {how} the {y}?"),
    "relation_follow": ("So is it {how} the {y}?", "Can you see it {how} the {y}?", "And does it stand {how} the {y}?", "Tell me, is it {how} the {y}?", "And is that {how} the {y}?"),
    "compare": ("So which is {how}, the {x} or the {y}?", "Which thing is {how}, the {x} or the {y}?", "Can you tell me which is {how}, the {x} or the {y}?", "What do you see that is {how}, the {x} or the {y}?", "The {x} or the {y}: which one is {how}?"),
}  # fmt: skip
