"""Connections to hosts that a caller of the API chose: the host is resolved once, its addresses are
checked, and the connection goes to exactly these; a second DNS query could have another answer.

Webhooks (worker.webhooks.sender) and datasets to fetch (worker.imports.download) go this way.
Proxies of the environment are not used: they would resolve the host again.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpcore

MAX_ADDRESSES = 4  # of one host, tried in turn

Resolve = Callable[[str, int], Sequence[str]]


class NotPublic(Exception):
    """The refusal of a host that has an address which is not allowed."""


def connections_to(
    url: str, deadline: float, allows: Callable[[str], bool], resolve: Resolve | None = None
) -> "PinnedBackend":
    """Return the way to the host of an address of HTTP: to what its name resolves to now, by
    `resolve` or addresses_of, until `deadline`, a time.monotonic().

    Raises NotPublic unless `allows` holds for all its addresses, socket.gaierror where it has none,
    and ValueError or LookupError where the address is not one of HTTP.
    """
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    addresses = (resolve or addresses_of)(parts.hostname or "", port)
    if not all(map(allows, addresses)):
        raise NotPublic("its host has an address that is not public")
    return PinnedBackend(addresses, deadline)


def addresses_of(host: str, port: int) -> Sequence[str]:
    """Return the host's addresses in the order in which to try them. Raises socket.gaierror."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Tell whether it is a public unicast address. An IPv6 address that stands for an IPv4 address
    counts as the latter."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and (inner := _ipv4_inside(ip)) is not None:
        ip = inner
    return ip.is_global and not (
        ip.is_multicast or ip.is_reserved or (ip.version == 6 and ip.is_site_local)
    )


def anywhere(address: str) -> bool:
    """Allow every address, as is_public does not."""
    return True


def _ipv4_inside(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


class PinnedBackend(httpcore.NetworkBackend):
    """A backend that connects to the first of these addresses that answers, whatever the host's
    name resolves to by now; TLS still verifies the name. Everything ends at `deadline`, a
    time.monotonic()."""

    def __init__(self, addresses: Sequence[str], deadline: float) -> None:
        self._addresses = addresses[:MAX_ADDRESSES]
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *args: Any, **kwargs: Any
    ) -> httpcore.NetworkStream:
        *others, last = self._addresses
        for address in others:
            try:
                return self._connect(address, port, timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connect(last, port, timeout)

    def _connect(self, address: str, port: int, timeout: float | None) -> httpcore.NetworkStream:
        left = _left(self._deadline, timeout, httpcore.ConnectTimeout)
        return _StreamWithDeadline(self._sockets.connect_tcp(address, port, left), self._deadline)


class _StreamWithDeadline(httpcore.NetworkStream):
    """A stream that ends at `deadline`: no receiver can hold us by sending a byte now and then."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = _left(self._deadline, timeout, httpcore.ReadTimeout)
        return self._stream.read(max_bytes, left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        left = _left(self._deadline, timeout, httpcore.WriteTimeout)
        self._stream.write(buffer, left)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(self._deadline, timeout, httpcore.ConnectTimeout)
        return _StreamWithDeadline(
            self._stream.start_tls(ssl_context, server_hostname, left), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float, timeout: float | None, ended: type[httpcore.TimeoutException]) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise ended
    return left if timeout is None else min(left, timeout)
