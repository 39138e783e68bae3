"""Addresses that callers give: of webhooks and of datasets to fetch.

No refusal shows the address itself: it may hold a password. Whether its host may be called is
checked when it is called.
"""

import re
from urllib.parse import urlsplit

MAX_URL = 2048  # characters
MAX_HOST = 253  # characters, as in DNS
MAX_KEY = 1024  # bytes, as in S3
S3 = "s3://"
BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_NOT_IN_URLS = re.compile(r"[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]")  # RFC 3986, 2


def check_url(url: str, whose: str) -> str:
    """Return the address itself if it is one of HTTP. Raises ValueError, whose text begins with
    `whose`."""
    if len(url) > MAX_URL:
        raise ValueError(f"{whose} has {len(url)} characters; it may have {MAX_URL}")
    if bad := _NOT_IN_URLS.search(url):
        raise ValueError(
            f"{whose} has {bad[0]!r} in it; such characters must be percent-encoded, "
            "and a host's name be in its ASCII form"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        rule = "it must be like https://host:port/path"
        raise ValueError(f"{whose} cannot be read; {rule}") from None
    if "@" in parts.netloc:
        raise ValueError(f"{whose} has credentials in it; it must have none")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{whose} must begin with http:// or https://")
    if not 1 <= len(parts.hostname or "") <= MAX_HOST:
        raise ValueError(f"{whose} must name a host of 1..{MAX_HOST} characters")
    if port == 0:
        raise ValueError(f"{whose} has port 0; it must be in 1..65535")
    return url


def bucket_and_key(url: str) -> tuple[str, str]:
    """Split s3://bucket/key; a key that is empty or ends with "/" is a prefix.

    Raises ValueError.
    """
    bucket, _, key = url.removeprefix(S3).partition("/")
    if not re.fullmatch(BUCKET, bucket):
        raise ValueError("url must name a bucket of 3..63 characters of a-z, 0-9, '.' and '-'")
    if len(key.encode()) > MAX_KEY:
        raise ValueError(f"url has a key of {len(key.encode())} bytes; it may have {MAX_KEY}")
    parts = key.removesuffix("/").split("/") if key else []
    if {"", ".", ".."} & set(parts) or not key.isprintable():
        raise ValueError("url has a key with an empty part, '.', '..' or a control character in it")
    return bucket, key


def without_query(url: str) -> str:
    """Return the address as it may be shown: a query often has a signature in it."""
    return url if url.startswith(S3) else re.split("[?#]", url, maxsplit=1)[0]
