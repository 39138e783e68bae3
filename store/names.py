"""Names of data sets and models: they stand in addresses and in keys of artefacts."""

import re

from store.errors import InvalidName

NAME_PATTERN = "^[a-z0-9][a-z0-9._-]{0,62}$"


def check_name(field: str, name: str) -> str:
    """The name itself. Raises InvalidName."""
    if not re.fullmatch(NAME_PATTERN, name) or ".." in name:
        shown = name if len(name) <= 80 else f"{name[:80]}… ({len(name)} characters)"
        raise InvalidName(
            f"{field} is {shown!r}; it must have 1..63 characters of a-z, 0-9, '.', '_' and '-', "
            "begin with a letter or digit, and not contain '..'"
        )
    return name
