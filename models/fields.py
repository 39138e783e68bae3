"""Checks of numbers that callers and files give; ValueError names the field and its bound."""


def check_whole(field: str, value: object, low: int, high: int) -> None:
    if type(value) is not int:  # True is no number here, and 2.0 no count
        raise ValueError(f"{field} is {_shown(value)}; it must be a whole number")
    if not low <= value <= high:
        raise ValueError(f"{field} is {_shown(value)}; it must lie in {low:.8g}..{high:.8g}")


def check_number(field: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{field} is {_shown(value)}; it must be a number")
    if not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{field} is {_shown(value)}; it must lie in {low:.8g}..{high:.8g}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
