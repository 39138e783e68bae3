"""Webhooks against real servers: what arrives, how often, and where nothing may arrive."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from host.environment import read_settings
from store.database import Database, now
from store.webhooks import RETRY_SECONDS, Delivery, enqueue, new_secret, secret_key
from worker.public_hosts import is_public
from worker.settings import WorkerSettings
from worker.webhooks.sender import AT_ONCE_EACH, WAIT_SECONDS, Sender, sign

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 20.0

SEND = """
import sys
from store.database import Database
from worker.webhooks.sender import Sender

Sender(Database(sys.argv[1]), "doomed", allow_private=True, lease_seconds=1.5).run()
"""


class Receiver(ThreadingHTTPServer):
    """Keeps what it gets; answers 204, or what `answer` does."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Callable[["_Handler"], None] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer or (lambda handler: handler.say(204))
        self.received: list[tuple[dict[str, str], bytes]] = []

    def url(self, host: str = "127.0.0.1", scheme: str = "http", path: str = "/hook") -> str:
        return f"{scheme}://{host}:{self.server_port}{path}"

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.received]

    def handle_error(self, request: object, client_address: object) -> None:
        """A sender that leaves early is expected here."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append((headers, body))
        self.server.answer(self)

    def say(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def a_receiver(
    answer: Callable[[_Handler], None] | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    with Receiver(answer) as server:
        if tls:
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def a_sender(database: Database, owner: str = "one", **options: Any) -> Iterator[Sender]:
    options = {"allow_private": True, "every_seconds": 0.05, **options}
    sender = Sender(database, owner, **options)
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()


def test_links_in_a_message_have_the_path_of_the_service(database):
    with a_receiver() as receiver, a_sender(database, root_path="/diffusion"):
        a_delivery(database, receiver.url(), id="job_1", links={"self": "/train-jobs/job_1"})
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not receiver.received and time.monotonic() < deadline:
            time.sleep(0.02)
        data = json.loads(receiver.received[0][1])["data"]
    assert data == {"id": "job_1", "links": {"self": "/diffusion/train-jobs/job_1"}}


def a_delivery(database: Database, url: str, **payload: Any) -> Delivery:
    with database.session() as session:
        return enqueue(
            session,
            job_id="job_1",
            url=url,
            secret=new_secret(),
            event="train_job.completed",
            payload=payload,
        )


def wait(database: Database, until: Callable[[Delivery], Any], delivery: Delivery) -> Delivery:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with database.session() as session:
            kept = session.get(Delivery, delivery.id)
        if until(kept):
            return kept
        if time.monotonic() > deadline:
            pytest.fail(f"after a long wait: {kept.attempts} attempts, {kept.last_error!r}")
        time.sleep(0.02)


def is_delivered(delivery: Delivery) -> bool:
    return delivery.delivered_at is not None


def has_failed_once(delivery: Delivery) -> bool:
    return delivery.last_error is not None


def make_due(database: Database) -> None:
    """Time passes."""
    with database.session() as session:
        session.execute(sa.update(Delivery).where(Delivery.due_at > now()).values(due_at=now()))


# What arrives -------------------------------------------------------------------------------------


def test_the_signature_is_that_of_the_standard_s_example():
    """The vector with which the standard's libraries test themselves."""
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_gets_the_event_signed(database):
    with a_receiver() as receiver, a_sender(database):
        made = a_delivery(database, receiver.url(), id="job_1", status="succeeded")
        wait(database, is_delivered, made)
    ((headers, body),) = receiver.received
    assert json.loads(body) == {
        "type": "train_job.completed",
        "timestamp": made.created_at.isoformat().replace("+00:00", "Z"),
        "data": {"id": "job_1", "status": "succeeded"},
    }
    assert headers["host"] == f"127.0.0.1:{receiver.server_port}"
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == made.id
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = b".".join([made.id.encode(), headers["webhook-timestamp"].encode(), body])
    digest = hmac.new(secret_key(made.secret), signed, hashlib.sha256).digest()
    version, signature = headers["webhook-signature"].split(",")
    assert (version, base64.b64decode(signature)) == ("v1", digest)


def test_nothing_that_is_logged_shows_a_secret(database):
    with capture_logs() as logs, a_receiver() as receiver, a_sender(database):
        good = a_delivery(database, receiver.url(path="/open-sesame"))
        bad = a_delivery(database, "http://127.0.0.1:1/open-sesame")
        wait(database, is_delivered, good)
        wait(database, has_failed_once, bad)
    assert {line["event"] for line in logs} == {"webhook delivered", "webhook not delivered"}
    for secret in (good.secret, bad.secret, "open-sesame"):
        assert secret not in repr(logs)


# How often ----------------------------------------------------------------------------------------


def test_what_was_answered_with_500_is_sent_again_as_the_same_message(database):
    statuses = iter([500, 404, 200])
    with a_receiver(lambda h: h.say(next(statuses))) as receiver, a_sender(database):
        made = a_delivery(database, receiver.url())
        first = wait(database, has_failed_once, made)
        assert first.last_error == "answered 500"
        make_due(database)
        wait(database, lambda d: d.last_error == "answered 404", made)
        make_due(database)
        last = wait(database, is_delivered, made)
    assert last.attempts == 3
    assert receiver.ids() == [made.id] * 3
    assert len({body for _, body in receiver.received}) == 1


def test_a_receiver_that_is_gone_is_left_alone(database):
    with a_receiver(lambda h: h.say(410)) as receiver, a_sender(database):
        made = wait(database, has_failed_once, a_delivery(database, receiver.url()))
    assert made.failed_at is not None
    assert made.due_at is None


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("1200", 1200),
        ("a date in 20 minutes", 1200),
        ("soon", RETRY_SECONDS[0]),
        ("-1", RETRY_SECONDS[0]),
    ],
)
def test_a_receiver_may_say_when_to_come_back(database, given, seconds):
    if given == "a date in 20 minutes":
        given = format_datetime(datetime.now(UTC) + timedelta(minutes=20), usegmt=True)
    with a_receiver(lambda h: h.say(503, Retry_After=given)) as receiver, a_sender(database):
        made = wait(database, has_failed_once, a_delivery(database, receiver.url()))
    assert (made.due_at - now()).total_seconds() == pytest.approx(seconds, abs=20)


def test_two_senders_deliver_each_message_once(database):
    with a_receiver() as receiver, a_sender(database, "one"), a_sender(database, "two"):
        made = [a_delivery(database, receiver.url()) for _ in range(20)]
        for delivery in made:
            wait(database, is_delivered, delivery)
    assert Counter(receiver.ids()) == {delivery.id: 1 for delivery in made}


def test_what_a_killed_sender_had_is_delivered_by_another(database, database_url):
    """The first sender dies while the receiver is still thinking about its request."""
    arrived, think = threading.Event(), threading.Event()

    def answer(handler: _Handler) -> None:
        arrived.set()
        think.wait(PATIENCE_SECONDS)
        handler.say(204)

    with a_receiver(answer) as receiver:
        made = a_delivery(database, receiver.url())
        process = subprocess.Popen([sys.executable, "-c", SEND, database_url], cwd=ROOT)
        try:
            assert arrived.wait(PATIENCE_SECONDS)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            think.set()
        with a_sender(database, "heir"):
            kept = wait(database, is_delivered, made)
    assert (kept.attempts, receiver.ids()) == (2, [made.id] * 2)


def test_a_slow_receiver_does_not_hold_up_the_others(database):
    think = threading.Event()

    def answer(handler: _Handler) -> None:
        think.wait(PATIENCE_SECONDS)
        handler.say(204)

    patient = {"attempt_seconds": 2 * PATIENCE_SECONDS, "lease_seconds": 4 * PATIENCE_SECONDS}
    with a_receiver(answer) as slow, a_receiver() as quick, a_sender(database, **patient):
        try:
            held = [a_delivery(database, slow.url()) for _ in range(12)]
            for delivery in [a_delivery(database, quick.url()) for _ in range(12)]:
                wait(database, is_delivered, delivery)
            assert len(slow.received) == AT_ONCE_EACH
        finally:
            think.set()
        for delivery in held:
            wait(database, is_delivered, delivery)


def test_a_worker_sends_webhooks(place, monkeypatch):
    monkeypatch.setenv("DIFFUSION_WEBHOOK_ALLOW_PRIVATE", "1")
    with a_receiver() as receiver:
        made = a_delivery(place.database, receiver.url())
        place.start_worker("sample")
        wait(place.database, is_delivered, made)


# Receivers that misbehave -------------------------------------------------------------------------


def drip(handler: _Handler) -> None:
    """A head that never ends, a byte at a time."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(int(PATIENCE_SECONDS / 0.05)):
        handler.wfile.write(b"x")
        time.sleep(0.05)
    handler.wfile.write(b"\r\nContent-Length: 0\r\n\r\n")


def dawdle(handler: _Handler) -> None:
    """Sooner than the longest wait for a byte."""
    time.sleep(WAIT_SECONDS / 2)
    handler.say(204)


@pytest.mark.parametrize("answer", [drip, dawdle])
def test_a_receiver_that_is_slow_in_all_is_left(database, answer):
    with a_receiver(answer) as receiver, a_sender(database, attempt_seconds=0.5):
        made = wait(database, has_failed_once, a_delivery(database, receiver.url()))
    assert made.last_error == "no answer within 0.5 s"


def pour(handler: _Handler) -> None:
    """A body that does not end before the sender leaves."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def test_of_an_answer_only_the_head_is_read(database):
    with a_receiver(pour) as receiver, a_sender(database):
        wait(database, is_delivered, a_delivery(database, receiver.url()))


def test_a_redirect_is_not_followed(database):
    with (
        a_receiver() as other,
        a_receiver(lambda h: h.say(307, Location=other.url())) as receiver,
        a_sender(database),
    ):
        made = wait(database, has_failed_once, a_delivery(database, receiver.url()))
    assert made.last_error == "answered 307"
    assert (len(receiver.received), other.received) == (1, [])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda h: None, "the connection ended before the answer"),
        (lambda h: h.wfile.write(b"220 mail\r\n"), "the connection ended before the answer"),
    ],
)
def test_an_answer_that_is_none_is_a_failure(database, answer, said):
    with a_receiver(answer) as receiver, a_sender(database):
        made = wait(database, has_failed_once, a_delivery(database, receiver.url()))
    assert made.last_error == said


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1/", "no connection"),
        ("http://nowhere.invalid/", "its host has no address"),
        ("http://[::1/", "it cannot be sent"),
        ("gopher://127.0.0.1/", "it cannot be sent"),
        (f"http://{'a' * 64}.invalid/", "it cannot be sent"),
    ],
)
def test_where_nobody_answers_the_reason_is_kept(database, url, said):
    with database.session() as session:
        made = Delivery(
            id="msg_1",
            job_id="job_1",
            url=url,
            receiver="r",
            secret=new_secret(),
            event="e",
            payload={},
            attempts=0,
            due_at=now(),
            created_at=now(),
        )
        session.add(made)
    with a_sender(database):
        assert wait(database, has_failed_once, made).last_error.startswith(said)


# Where nothing may arrive -------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "0"])
def test_this_host_is_refused_under_any_name(database, host):
    with a_receiver() as receiver, a_sender(database, allow_private=False):
        made = wait(database, has_failed_once, a_delivery(database, receiver.url(host)))
    assert made.last_error == "its host has an address that is not public"
    assert receiver.received == []


def test_one_private_address_among_public_ones_is_enough(database):
    addresses = ["8.8.8.8", "127.0.0.1"]
    with (
        a_receiver() as receiver,
        a_sender(database, allow_private=False, resolve=lambda host, port: addresses),
    ):
        made = wait(database, has_failed_once, a_delivery(database, receiver.url("hooks.invalid")))
    assert made.last_error == "its host has an address that is not public"


def test_the_connection_goes_to_the_address_that_was_looked_at(database):
    """DNS knows no hooks.invalid: a second question to it would end in nothing."""
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"]

    with a_receiver() as receiver, a_sender(database, resolve=resolve):
        wait(database, is_delivered, a_delivery(database, receiver.url("hooks.invalid")))
    assert asked == [("hooks.invalid", receiver.server_port)]
    ((headers, _),) = receiver.received
    assert headers["host"] == f"hooks.invalid:{receiver.server_port}"


def test_where_the_first_address_is_dead_the_next_is_tried(database):
    """Nobody listens on 127.0.0.2."""
    resolve = lambda host, port: ["127.0.0.2", "127.0.0.1"]  # noqa: E731
    with a_receiver() as receiver, a_sender(database, resolve=resolve):
        made = wait(database, is_delivered, a_delivery(database, receiver.url("hooks.invalid")))
    assert made.attempts == 1


def test_proxies_of_the_environment_are_passed_by(database, monkeypatch):
    with a_receiver() as proxy, a_receiver() as receiver:
        monkeypatch.setenv("HTTP_PROXY", proxy.url(path=""))
        monkeypatch.setenv("ALL_PROXY", proxy.url(path=""))
        with a_sender(database):
            wait(database, is_delivered, a_delivery(database, receiver.url()))
    assert (len(receiver.received), proxy.received) == (1, [])


PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
NOT_PUBLIC = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",  # shared, RFC 6598
    "127.8.8.8",
    "169.254.169.254",  # where clouds keep their credentials
    "172.16.0.1",
    "192.168.1.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fc00::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff0e::1",
    "2001:db8::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:a00:1::1",  # 6to4
]


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_all_others_are_not(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    ("text", "allowed"), [(None, False), ("", False), ("0", False), ("1", True)]
)
def test_private_addresses_are_allowed_by_setting_only(text, allowed):
    environment = {} if text is None else {"DIFFUSION_WEBHOOK_ALLOW_PRIVATE": text}
    assert read_settings(WorkerSettings, environment).webhook_allow_private is allowed


def test_a_setting_that_is_neither_yes_nor_no_is_refused():
    with pytest.raises(ValueError, match="ALLOW_PRIVATE is 'maybe'; it must be 0 or 1"):
        read_settings(WorkerSettings, {"DIFFUSION_WEBHOOK_ALLOW_PRIVATE": "maybe"})


# TLS ----------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of localhost, signed by itself, in one file with its key."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make a certificate with")
    path = tmp_path / "localhost.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=localhost -addext subjectAltName=DNS:localhost "
        "-keyout key.pem -out cert.pem && cat key.pem cert.pem > localhost.pem",
        shell=True,
        check=True,
        cwd=tmp_path,
        capture_output=True,
    )
    return path


def tls_of(certificate: Path, asked: list[str | None]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _, name, __: asked.append(name)
    return context


def test_tls_asks_for_the_host_by_name(database, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    asked: list[str | None] = []
    with a_receiver(tls=tls_of(certificate, asked)) as receiver, a_sender(database):
        made = a_delivery(database, receiver.url("localhost", "https"))
        wait(database, is_delivered, made)
    assert (asked, receiver.ids()) == (["localhost"], [made.id])


def test_a_certificate_that_nobody_vouches_for_is_refused(database, certificate):
    with a_receiver(tls=tls_of(certificate, [])) as receiver, a_sender(database):
        made = a_delivery(database, receiver.url("localhost", "https"))
        assert wait(database, has_failed_once, made).last_error == "TLS could not be agreed on"
    assert receiver.received == []


def test_a_certificate_of_another_host_is_refused(database, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    resolve = lambda host, port: ["127.0.0.1"]  # noqa: E731
    with (
        a_receiver(tls=tls_of(certificate, [])) as receiver,
        a_sender(database, resolve=resolve),
    ):
        made = a_delivery(database, receiver.url("hooks.invalid", "https"))
        assert wait(database, has_failed_once, made).last_error == "TLS could not be agreed on"
    assert receiver.received == []
