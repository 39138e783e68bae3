"""Content negotiation by the Accept header (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence
from functools import lru_cache

from app.http.errors import NotAcceptable


@lru_cache(maxsize=256)
def choose(accept: str | None, offered: tuple[str, ...]) -> str:
    """Return the media type of `offered` that `accept` prefers; on a tie the first one offered.

    Raises NotAcceptable if it accepts none of them.
    """
    if not accept:
        return offered[0]
    ranges = [_parse(item) for item in accept[:4096].split(",") if item.strip()]
    quality = {media_type: _quality(media_type, ranges) for media_type in offered}
    best = max(offered, key=lambda media_type: quality[media_type])
    if quality[best] <= 0:
        raise NotAcceptable(f"Accept is {accept[:200]!r}; this address offers {', '.join(offered)}")
    return best


def _parse(item: str) -> tuple[str, float]:
    media_range, *parameters = (part.strip().lower() for part in item.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return media_range, float(parameter[2:])
            except ValueError:
                return media_range, 0.0
    return media_range, 1.0


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the quality of the most specific matching range, 0 if none matches."""
    for pattern in (media_type, media_type.split("/")[0] + "/*", "*/*"):
        for media_range, quality in ranges:
            if media_range == pattern:
                return quality
    return 0.0
