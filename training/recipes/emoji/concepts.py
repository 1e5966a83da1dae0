"""What an image shows, and which concepts a small checkpoint learns first."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Concept:
    """What one image shows, and in which style."""

    style: str
    name: str
    tags: tuple[str, ...]
    group: str
    subgroup: str
    hexcode: str


WELL_KNOWN = """
red heart; orange heart; yellow heart; green heart; blue heart; purple heart; black heart; broken heart; grinning face;
smiling face with sunglasses; smiling face with hearts; face with tears of joy; winking face; thinking face;
sleeping face; crying face; angry face; partying face; cowboy hat face; skull; ghost; alien; robot; pile of poo;
clown face; dog face; cat face; monkey face; lion; tiger face; fox; wolf; bear; panda; koala; rabbit face; mouse face;
pig face; cow face; horse face; unicorn; frog; chicken; penguin; owl; duck; bird; elephant; giraffe; zebra; turtle;
snake; fish; tropical fish; dolphin; whale; shark; octopus; crab; snail; butterfly; honeybee; lady beetle; spider;
rose; sunflower; tulip; cherry blossom; cactus; palm tree; evergreen tree; four leaf clover; maple leaf; mushroom;
red apple; green apple; banana; orange; tangerine; lemon; pear; peach; cherries; strawberry; grapes; watermelon;
pineapple; kiwi fruit; tomato; avocado; carrot; ear of corn; hot pepper; broccoli; bread; croissant; cheese wedge;
hamburger; french fries; pizza; hot dog; taco; egg; popcorn; sushi; ice cream; soft ice cream; doughnut; cookie;
birthday cake; cupcake; chocolate bar; candy; lollipop; hot beverage; teapot; beer mug; wine glass; house; castle;
school; church; tent; ferris wheel; train; bus; police car; fire engine; ambulance; taxi; automobile; tractor;
bicycle; motorcycle; sailboat; ship; airplane; helicopter; rocket; flying saucer; sun; sun with face; full moon;
crescent moon; star; cloud; cloud with rain; rainbow; umbrella; snowflake; snowman; fire; droplet; high voltage;
christmas tree; jack-o-lantern; balloon; wrapped gift; trophy; soccer ball; basketball; american football; tennis;
bullseye; game die; puzzle piece; teddy bear; video game; artist palette; guitar; violin; trumpet; drum; piano; bell;
crown; top hat; glasses; sunglasses; t-shirt; backpack; ring; gem stone; key; locked; hammer; scissors; pencil;
paintbrush; light bulb; candle; books; open book; envelope; camera; television; telephone; mobile phone; laptop;
alarm clock; hourglass done; watch; magnet; microscope; telescope; bomb; shield; money bag; coin; anchor; compass;
globe showing americas; volcano; mountain; stop sign; check mark button; cross mark; red question mark; yin yang;
recycling symbol; musical note
"""
# Groups with visually distinct concepts come first; people in many professions and buttons come last.
GROUP_ORDER = (
    "animals-nature",
    "food-drink",
    "smileys-emotion",
    "activities",
    "travel-places",
    "objects",
    "symbols",
    "people-body",
)


def choose(concepts: list[Concept], count: int | None) -> list[int]:
    """Indices of images of the `count` best-known concepts, in all styles they have; all indices for None.

    Well-known names first, then group by group; clock faces and boxed words last in their groups.
    """
    known = {name.strip(): i for i, name in enumerate(WELL_KNOWN.replace("\n", " ").split(";"))}

    def order(code: str) -> tuple[int, int, int]:
        concept = first[code]
        group = GROUP_ORDER.index(concept.group) if concept.group in GROUP_ORDER else len(GROUP_ORDER)
        dull = "button" in concept.name or "’clock" in concept.name or "thirty" in concept.name
        return (known.get(concept.name, len(known)), group + len(GROUP_ORDER) * dull, position[code])

    first: dict[str, Concept] = {}
    for concept in concepts:
        first.setdefault(concept.hexcode, concept)
    position = {code: i for i, code in enumerate(first)}
    chosen = set(sorted(first, key=order)[:count])
    return [i for i, concept in enumerate(concepts) if concept.hexcode in chosen]
