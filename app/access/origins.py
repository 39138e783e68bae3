"""Which names the service has, and which web pages may change something on it.

A page that a browser shows can send requests to a service on the same machine. It cannot read the
answers unless its own name leads to that machine, which whoever owns the name can arrange (DNS
rebinding); so names that are not the service's are refused. And it needs no answer to start or to
delete something; so changes from other origins are refused, unless CORS lists them.
"""

import re
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

ANY = "*"


def is_own_host(host: str, trusted: Sequence[str]) -> bool:
    """Return whether a Host header, with or without a port, names this service: an address, which
    nobody can rebind, this machine's own name, or one of `trusted` (*.example.org, or any by *)."""
    name = _without_port(host).lower().removesuffix(".")
    if _is_address(name) or name in ("localhost", socket.gethostname().lower()):
        return True
    return any(
        known == ANY or name == known or (known.startswith("*.") and name.endswith(known[1:]))
        for known in trusted
    )


def is_foreign(origin: str | None, site: str | None, host: str, allowed: Sequence[str]) -> bool:
    """Return whether a request comes from a web page of another origin that is not `allowed`.

    `origin` and `site` are the headers Origin and Sec-Fetch-Site, which programs do not send.
    """
    if ANY in allowed or origin in allowed:
        return False
    if origin is not None:
        return urlsplit(origin).netloc.lower() != host.lower()
    return site in ("cross-site", "same-site")


def _without_port(host: str) -> str:
    return re.sub(r":\d+$", "", host).strip("[]") if host.startswith("[") else host.split(":")[0]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
