"""Uploads over the owner's quota of space are refused before, or while, they are sent."""

import io
import select
import socket
import zipfile
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from PIL import Image

from app.main import create_app
from app.settings import Settings
from store.access.keys import create_key
from store.access.owners import Quotas
from store.database import open_database
from store.locations import Locations

QUOTA = 1_000_000
PATHS = ["PUT /datasets/more", "POST /datasets/digits/images", "PUT /models/faces"]


def archive(shade: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for n in range(8):
            picture = io.BytesIO()
            Image.fromarray(np.full((8, 8), shade + n, np.uint8)).save(picture, "png")
            file.writestr(f"{n % 2}/{n}.png", picture.getvalue())
        file.writestr("notes.txt", bytes(300_000))  # it is stored with the rest
    return buffer.getvalue()


@pytest.fixture(scope="module")
def alice(serve, tmp_path_factory) -> Iterator[httpx.Client]:
    """Who has stored 300 kB of a megabyte."""
    data_dir = tmp_path_factory.mktemp("data")
    settings = Settings(
        locations=Locations(data_dir), example_model=False, quotas=Quotas(quota_bytes=QUOTA)
    )
    database = open_database(settings.locations.database_url)
    headers = {"Authorization": f"Bearer {create_key(database, 'alice', ['datasets', 'train'])[1]}"}
    database.close()
    with (
        serve(create_app(settings)) as url,
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
    ):
        client.put("/datasets/digits", content=archive(0)).raise_for_status()
        yield client


def begin(alice: httpx.Client, call: str, header: str) -> socket.socket:
    """Send the head of a request."""
    connection = socket.create_connection((alice.base_url.host, alice.base_url.port), timeout=30)
    key = alice.headers["Authorization"]
    head = f"{call} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\n{header}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


@pytest.mark.parametrize("call", PATHS)
def test_a_length_that_does_not_fit_is_refused_before_the_body(call, alice):
    with begin(alice, call, f"Content-Length: {QUOTA}") as connection:
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 429")
    assert b"/problems/quota-exceeded" in answer
    assert b"your quota is 1000000 bytes" in answer


@pytest.mark.parametrize("call", PATHS)
def test_a_body_without_a_length_is_read_no_further_than_it_fits(call, alice):
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    sent = 0
    with begin(alice, call, "Transfer-Encoding: chunked") as connection:
        while not select.select([connection], [], [], 0.05)[0]:
            connection.sendall(chunk)
            sent += 0x10000
            assert sent < 3 * QUOTA, "nobody minds"
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 429")
    assert sent > QUOTA / 2, "it was refused before it was too much"
    assert alice.get("/session").json()["usage"]["bytes"]["used"] < QUOTA / 2


def test_what_is_there_may_be_sent_again(alice):
    alice.put("/datasets/second", content=archive(50)).raise_for_status()
    third = archive(100)  # made anew it would have another time in it
    alice.put("/datasets/third", content=third).raise_for_status()
    assert alice.put("/datasets/fourth", content=archive(150)).status_code == 429
    assert alice.put("/datasets/third", content=third).status_code == 200
