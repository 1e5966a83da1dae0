"""Normalised English: lower case, articles, plurals. Rules of thumb, not a grammar."""

import re
import unicodedata

MASS = re.compile(
    "butter|bread|rice|cheese|honey|water|fire|fog|sake|bacon|garlic|ginger|broccoli|corn|soap|ice|luggage|mahjong|"
    "cricket|badminton|tennis|volleyball|basketball|baseball|music|money|sushi|tofu|sunrise|sunset"
)
DECORATION = {ord("’"): "'", ord("‘"): "'", ord("“"): "", ord("”"): "", ord("&"): " and ", ord(":"): ","}


def plain(text: str) -> str:
    """Lower case, ASCII, straight quotes, no decoration, as the text encoder's own normaliser does."""
    text = text.lower().translate(DECORATION)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"\s+", " ", text).strip()


def with_article(name: str) -> str:
    """`red heart` -> `a red heart`; plural and mass nouns get none."""
    head = re.split(r",| with | in | on | of ", name)[0].split(" ")[-1]
    plural = head.endswith("s") and not head.endswith(("ss", "us", "is", "'s"))
    if plural or MASS.fullmatch(head) or name.split(" ")[0] in ("a", "an", "the", "no", "mx", "mrs"):
        return name
    return f"{'an' if name[0] in 'aeiou' and not name.startswith(('uni', 'one', 'eu', 'ufo')) else 'a'} {name}"


def pluralised(name: str) -> str:
    """`red heart` -> `red hearts`, by the regular rules."""
    if name.endswith(("s", "x", "ch", "sh")):
        return f"{name}es" if not name.endswith("s") or name.endswith("ss") else name
    return f"{name[:-1]}ies" if name.endswith("y") and name[-2] not in "aeiou" else f"{name}s"
