"""Names of prompts and tags, and references to a version: NAME, NAME@2, NAME@production.

In: what a user typed. Out: a name as it is kept, or a `Reference`; or one sentence about what is
wrong with it.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from minipt.errors import MiniptError

FORBIDDEN = "/\\@,"
LONGEST = 100  # characters
NUMBER = re.compile(r"[1-9][0-9]{0,17}")  # what SQLite can compare
SHOWN = 120  # characters of a list of names


@dataclass(frozen=True)
class Reference:
    """A name, and behind its @ a number or a tag; neither: the newest version."""

    name: str
    number: int | None = None
    tag: str | None = None


def check_name(name: str, kind: str = "prompt") -> str:
    """A prompt's or a tag's name in the one form of Unicode in which it is kept.

    Raises MiniptError for a name that could not be typed, listed or told from a reference.
    """
    if not isinstance(name, str):
        raise MiniptError(f"a {kind}'s name is a string, not {name!r:.60}")
    name = unicodedata.normalize("NFC", name)  # some systems type é as two characters
    if not name or name != name.strip() or not name.isprintable():
        why = "is empty, or has white space around it or characters that cannot be seen"
    elif any(letter in FORBIDDEN for letter in name):
        why = f"holds one of {' '.join(FORBIDDEN)}"
    elif name[0] in "-.":
        why = "begins with a dash or a dot"
    elif len(name) > LONGEST:
        why = f"is longer than {LONGEST} characters"
    elif kind == "tag" and name.isdecimal():
        why = "is a number, which names a version"
    else:
        return name
    raise MiniptError(f"the {kind}'s name {name!r:.60} {why}: choose another")


def is_name(name: str) -> bool:
    """Whether a prompt could be kept under this name."""
    try:
        return bool(check_name(name))
    except MiniptError:
        return False


def parse_reference(text: str) -> Reference:
    """A reference as it was typed. Raises MiniptError for text that is none."""
    name, at, rest = str(text).partition("@")
    name = check_name(name)
    if not at:
        return Reference(name)
    if NUMBER.fullmatch(rest):
        return Reference(name, number=int(rest))
    if not rest or rest.isdecimal():
        raise MiniptError(
            f"{text!r:.60} names no version: write NAME, NAME@2 for a version from 1 on, or "
            "NAME@TAG"
        )
    return Reference(name, tag=check_name(rest, "tag"))


def known_names(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about a name that is unknown: which there are, the near ones first."""
    names = list(names)
    if not names:
        return "there is none yet"
    near = get_close_matches(name, names, n=3)
    listed = ", ".join([*near, *(each for each in names if each not in near)])
    listed = listed if len(listed) <= SHOWN else f"{listed[: SHOWN - 3]}..."
    return f"did you mean {near[0]}? There are {listed}" if near else f"there are {listed}"
