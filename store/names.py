"""The rule for names that users give, of datasets and models.

Names are parts of addresses and of artifacts' keys. In full they begin with their owner, as in
alice:digits (store.access.owners).
"""

import re

from store.errors import InvalidName

OWNER_SEPARATOR = ":"
MAX_NAME, MAX_OWNER = 63, 32
_WORD = r"[a-z0-9](\.?[a-z0-9_-])*\.?"
NAME_PATTERN = rf"^({_WORD}{OWNER_SEPARATOR})?{_WORD}$"
MAX_FULL_NAME = MAX_OWNER + 1 + MAX_NAME
NAME_RULE = (
    f"it must have 1..{MAX_NAME} characters of a-z, 0-9, '.', '_' and '-', "
    "begin with a letter or digit, and not contain '..'"
)


def check_name(field: str, name: str) -> str:
    """Return the name itself. Raises InvalidName."""
    if not is_name(name):
        shown = name if len(name) <= 80 else f"{name[:80]}… ({len(name)} characters)"
        raise InvalidName(field, f"{field} is {shown!r}; {NAME_RULE}")
    return name


def is_name(text: str) -> bool:
    """Return whether it is a name, in full or without its owner."""
    owner, _, name = text.rpartition(OWNER_SEPARATOR)
    fits = len(owner) <= MAX_OWNER and len(name) <= MAX_NAME
    return fits and re.fullmatch(NAME_PATTERN, text) is not None


def is_owner(text: str) -> bool:
    return len(text) <= MAX_OWNER and re.fullmatch(_WORD, text) is not None
