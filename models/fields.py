"""The core's one refusal, and the checks that raise it.

ValueError
└── Invalid      a value that a caller or a file gave: its field, the value, what it must be
"""


class Invalid(ValueError):
    """`{field} is {value}; {rule}`, for the caller to read.

    `field` is dotted where it lies inside another, as "net.dropout"; empty where no single field
    is at fault. `rule` names the bound.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"{field} is {_shown(value)}; {rule}")
        self.field, self.value, self.rule = field, value, rule

    @classmethod
    def because(cls, message: str, *, field: str = "", value: object = None) -> "Invalid":
        """Return a refusal that says just this, where "field is value; rule" would not read."""
        refusal = cls(field, value, message)
        refusal.args = (message,)
        return refusal

    def within(self, part: str) -> "Invalid":
        """Return the same refusal with the field placed inside `part`, as "net.dropout"."""
        field = f"{part}.{self.field}" if self.field else part
        return Invalid.because(f"{part}.{self}", field=field, value=self.value)


def check_whole(field: str, value: object, low: int, high: int) -> None:
    if type(value) is not int:  # True is no number here, and 2.0 no count
        raise Invalid(field, value, "it must be a whole number")
    if not low <= value <= high:
        raise Invalid(field, value, f"it must lie in {low:.8g}..{high:.8g}")


def check_number(field: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(field, value, "it must be a number")
    if not low <= value <= high:  # also refuses NaN
        raise Invalid(field, value, f"it must lie in {low:.8g}..{high:.8g}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
