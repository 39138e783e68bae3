"""The sender of webhooks, as in Standard Webhooks 1.0 (https://www.standardwebhooks.com): signed,
each attempt with its own timestamp, until the receiver accepts. Runs in every worker.

The address is chosen by callers of the API and is not trusted: a host with an address that is not
public is refused (worker.public_hosts), no redirect is followed, and an attempt has a time limit as
a whole, however slowly the receiver answers.
"""

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpcore
import structlog
from sqlalchemy.exc import SQLAlchemyError

from store import webhooks
from store.database import Database, now
from store.webhooks import Delivery, secret_key
from worker.public_hosts import NotPublic, Resolve, anywhere, connections_to, is_public

CONNECT_SECONDS = 5.0  # to one address
WAIT_SECONDS = 10.0  # for the next byte
ATTEMPT_SECONDS = 15.0  # as a whole
AT_ONCE = 8
AT_ONCE_EACH = 2  # to one receiver, so that a slow one leaves room for others
FORGET_EVERY_SECONDS = 3600.0

log = structlog.get_logger("webhooks")


class Refused(Exception):
    """The failure of an attempt; its text is meant for the caller."""

    def __init__(self, reason: str, *, gone: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.gone, self.retry_after = gone, retry_after


class Sender(threading.Thread):
    """A thread that sends the deliveries that are due, a few at a time."""

    def __init__(
        self,
        database: Database,
        owner: str,
        *,
        allow_private: bool = False,
        root_path: str = "",
        every_seconds: float = 1.0,
        attempt_seconds: float = ATTEMPT_SECONDS,
        lease_seconds: float = 60.0,  # well above an attempt, so that no two senders send at once
        resolve: Resolve | None = None,
    ) -> None:
        super().__init__(name="webhooks", daemon=True)
        self._database, self._owner = database, owner
        self._allows = anywhere if allow_private else is_public
        self._every, self._lease = every_seconds, lease_seconds
        self._root_path = root_path
        self._attempt_seconds = attempt_seconds
        self._resolve = resolve
        self._tls = httpcore.default_ssl_context()
        self._in_flight: dict[threading.Thread, Delivery] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._forget_at = 0.0

    def run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            try:
                self._forget()
                while not self._stopped and self._send_next():
                    pass
            except SQLAlchemyError:
                log.exception("this round of sending webhooks failed")
            self._wake.wait(self._every)

    def stop(self, patience_seconds: float = 2.0) -> None:
        """Wait for attempts in flight, but not for longer; another sender repeats the rest when its
        lease ends."""
        self._stopped = True
        self._wake.set()
        deadline = time.monotonic() + patience_seconds
        self.join(patience_seconds)
        with self._lock:
            threads = list(self._in_flight)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _send_next(self) -> bool:
        """Start the next delivery; False where none is due, or too many are in flight."""
        with self._lock:
            counts = Counter(delivery.receiver for delivery in self._in_flight.values())
        if counts.total() >= AT_ONCE:
            return False
        busy = [receiver for receiver, count in counts.items() if count >= AT_ONCE_EACH]
        delivery = webhooks.claim_due(self._database, self._owner, self._lease, busy=busy)
        if delivery is None:
            return False
        thread = threading.Thread(target=self._deliver, args=(delivery,), daemon=True)
        with self._lock:
            self._in_flight[thread] = delivery
        thread.start()
        return True

    def _deliver(self, delivery: Delivery) -> None:
        try:
            self._attempt_and_record(delivery)
        except SQLAlchemyError:  # it is sent again when the lease ends
            log.exception("the outcome of a webhook could not be written", delivery=delivery.id)
        finally:
            with self._lock:
                del self._in_flight[threading.current_thread()]
            self._wake.set()

    def _attempt_and_record(self, delivery: Delivery) -> None:
        # Only the receiver is logged: the rest of a URL may be a secret.
        labels = {"delivery": delivery.id, "job": delivery.job_id, "receiver": delivery.receiver}
        try:
            self._attempt(delivery)
        except Refused as refusal:
            log.info(
                "webhook not delivered", attempt=delivery.attempts, reason=str(refusal), **labels
            )
            webhooks.failed(
                self._database,
                delivery,
                str(refusal),
                gone=refusal.gone,
                retry_after=refusal.retry_after,
            )
        else:
            log.info("webhook delivered", attempt=delivery.attempts, **labels)
            webhooks.delivered(self._database, delivery)

    def _attempt(self, delivery: Delivery) -> None:
        deadline = time.monotonic() + self._attempt_seconds
        try:
            network = connections_to(delivery.url, deadline, self._allows, self._resolve)
            post(delivery, body_of(delivery, self._root_path), network, self._tls)
        except NotPublic as refusal:
            raise Refused(str(refusal)) from None
        except httpcore.TimeoutException:
            raise Refused(f"no answer within {self._attempt_seconds:g} s") from None
        except httpcore.ConnectError as error:
            bad = isinstance(error.__context__, ssl.SSLError)
            raise Refused("TLS could not be agreed on" if bad else "no connection") from None
        except (httpcore.NetworkError, httpcore.ProtocolError):
            raise Refused("the connection ended before the answer") from None
        except socket.gaierror:
            raise Refused("its host has no address") from None
        except (ValueError, LookupError):
            raise Refused("it cannot be sent: its URL, secret or payload is broken") from None

    def _forget(self) -> None:
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_EVERY_SECONDS
            webhooks.forget_old(self._database)


# One attempt --------------------------------------------------------------------------------------


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message. Raises ValueError where `secret` cannot be used."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.digest(secret_key(secret), signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def body_of(delivery: Delivery, root_path: str) -> bytes:
    """Return the message; its links get the path below which the service is."""
    links = {name: root_path + path for name, path in delivery.payload.get("links", {}).items()}
    message = {
        "type": delivery.event,
        "timestamp": delivery.created_at.isoformat().replace("+00:00", "Z"),
        "data": delivery.payload | ({"links": links} if links else {}),
    }
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode()


def post(
    delivery: Delivery, body: bytes, network: httpcore.NetworkBackend, tls: ssl.SSLContext
) -> None:
    """Send a delivery; only the headers of the answer are read.

    Raises Refused on a status other than 2xx, and the errors of httpcore.
    """
    timestamp = int(time.time())
    headers: dict[bytes | str, bytes | str] = {
        "Host": urlsplit(delivery.url).netloc,
        "Content-Type": "application/json",
        "User-Agent": "diffusion-service",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(delivery.secret, delivery.id, timestamp, body),
    }
    limits = {"connect": CONNECT_SECONDS, "read": WAIT_SECONDS, "write": WAIT_SECONDS}
    with (
        httpcore.ConnectionPool(ssl_context=tls, network_backend=network) as pool,
        pool.stream(
            "POST", delivery.url, headers=headers, content=body, extensions={"timeout": limits}
        ) as answer,
    ):
        if not 200 <= answer.status <= 299:
            raise Refused(
                f"answered {answer.status}",
                gone=answer.status == 410,
                retry_after=_retry_after(answer.headers),
            )


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float:
    """Return the seconds of Retry-After (RFC 9110, 10.2.3); 0 where it is missing or unreadable."""
    given = next((value for name, value in headers if name.lower() == b"retry-after"), b"")
    text = given.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at: datetime = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return (at.replace(tzinfo=at.tzinfo or UTC) - now()).total_seconds()
