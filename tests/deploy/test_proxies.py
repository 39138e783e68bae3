"""nginx and Caddy with the files of deploy/proxies, over TLS, before a real server with keys."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from store.access.keys import create_key
from store.database import open_database
from store.locations import Locations
from tests.app.access.test_guard import archive
from tests.app.conftest import CHROMIUM, FLAGS, needs

ROOT = Path(__file__).parents[2]
PROXIES = ROOT / "deploy" / "proxies"
NAME = "images.example.org"
CALLER = "127.0.0.2"  # all of 127.0.0.0/8 is this machine
HALF = 4_000_000  # bytes of an upload


@dataclass(frozen=True)
class Server:
    port: int
    data_dir: Path
    path: str
    keys: dict[str, str]


@dataclass(frozen=True)
class Proxy:
    port: int
    server: Server
    certificate: Path

    def client(self, who: str | None = None) -> httpx.Client:
        """A client at another address than the proxy's, that claims to be at a third one."""
        headers = {"Host": NAME, "X-Forwarded-For": "203.0.113.9", "Accept": "application/json"}
        if who:
            headers["Authorization"] = f"Bearer {self.server.keys[who]}"
        tls = ssl.create_default_context(cafile=str(self.certificate))
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}{self.server.path}",
            headers=headers,
            timeout=60,
            transport=httpx.HTTPTransport(verify=tls, local_address=CALLER),
            event_hooks={"request": [_name_the_host]},
        )


def _name_the_host(request: httpx.Request) -> None:
    request.extensions["sni_hostname"] = NAME


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def _running(command: list[str], port: int, **environment: str) -> Iterator[None]:
    process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=ROOT)
    try:
        deadline = time.monotonic() + 90
        while True:
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, f"{command[0]} does not listen"
                time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module", params=["", "/diffusion"], ids=["host", "path"])
def server(request, tmp_path_factory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("data")
    database = open_database(Locations(data_dir).database_url)
    scopes = ["read", "sample", "train", "datasets"]
    keys = {
        "alice": create_key(database, "alice", scopes)[1],
        "root": create_key(database, "root", ["admin"])[1],
    }
    database.close()
    port = _free_port()
    settings = {
        "DIFFUSION_DATA_DIR": str(data_dir),
        "DIFFUSION_PORT": str(port),
        "DIFFUSION_PROXIES": "127.0.0.1",
        "DIFFUSION_TRUSTED_HOSTS": NAME,
        "DIFFUSION_ROOT_PATH": request.param,
    }
    with _running([sys.executable, "-m", "app.server"], port, **settings):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as direct:
            while direct.get("/healthz").status_code != 200:
                time.sleep(0.1)
        yield Server(port, data_dir, request.param, keys)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN={NAME} -addext subjectAltName=DNS:{NAME} "
        "-keyout privkey.pem -out fullchain.pem",
        shell=True,
        check=True,
        cwd=folder,
        capture_output=True,
    )
    return folder / "fullchain.pem"


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxy(request, server, certificate, tmp_path_factory) -> Iterator[Proxy]:
    if not shutil.which(request.param):
        missing = f"{request.param} is missing; apt-get install nginx-light caddy"
        if os.environ.get("DIFFUSION_TEST_PROXIES") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp(request.param)
    start = _nginx if request.param == "nginx" else _caddy
    plain, port = _free_port(), _free_port()
    with _running(start(folder, server, certificate, plain, port), port, HOME=str(folder)):
        yield Proxy(port, server, certificate)


def _nginx(folder: Path, server: Server, certificate: Path, plain: int, port: int) -> list[str]:
    """Write the file with our ports and certificate, in the least that nginx needs around it."""
    site = (PROXIES / ("nginx-path.conf" if server.path else "nginx.conf")).read_text()
    for theirs, ours in {
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "/etc/ssl/images.example.org": str(certificate.parent),
        "127.0.0.1:8000": f"127.0.0.1:{server.port}",
    }.items():
        assert site.count(theirs) in (1, 2), theirs
        site = site.replace(theirs, ours)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {places}\n{site} }}"
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _caddy(folder: Path, server: Server, certificate: Path, plain: int, port: int) -> list[str]:
    """Write the file with our ports, and with a certificate that nobody has to ask for."""
    site = (PROXIES / ("Caddyfile-path" if server.path else "Caddyfile")).read_text()
    site = site.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    tls = f"tls {certificate} {certificate.with_name('privkey.pem')}"
    site, count = re.subn(r"^images\.example\.org \{$", rf"\g<0>\n\t{tls}", site, flags=re.M)
    assert count == 1
    options = f"{{\n\tadmin off\n\thttp_port {plain}\n\thttps_port {port}\n}}\n"
    (folder / "Caddyfile").write_text(options + site)
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.mark.parametrize("name", ["nginx.conf", "Caddyfile", "Caddyfile-path"])
def test_the_page_shows_the_file(name):
    assert (PROXIES / name).read_text() in (ROOT / "docs" / "proxies.md").read_text()


def test_below_a_path_nginx_differs_in_one_place():
    whole, part = ((PROXIES / name).read_text() for name in ("nginx.conf", "nginx-path.conf"))
    part = re.sub("location /diffusion/ {\n(.*;)  #.*", r"location / {\n\1", part)
    assert part.split("upstream")[1] == whole.split("upstream")[1]


def test_links_lead_through_the_proxy(proxy):
    with proxy.client("alice") as alice:
        made = alice.put("/datasets/digits", content=archive()).raise_for_status()
        for link in (made.headers["location"], *made.json()["links"].values()):
            assert link.startswith(f"{proxy.server.path}/datasets/")
            there = f"https://127.0.0.1:{proxy.port}{link}"
            assert alice.get(there).status_code == 200, link
        docs = alice.get("/docs/")
        assert docs.headers["location"] == f"https://{NAME}{proxy.server.path}/docs"


def test_the_log_has_the_address_of_the_caller(proxy):
    with proxy.client("alice") as alice, proxy.client("root") as root:
        made = alice.put("/datasets/noted", content=archive()).raise_for_status()
        entries = root.get("/audit", params={"limit": 100}).raise_for_status().json()["items"]
    request_id = made.headers["x-request-id"]
    assert [e["address"] for e in entries if e["request_id"] == request_id] == [CALLER]


def test_another_host_and_another_origin_are_refused(proxy):
    with proxy.client("alice") as alice:
        own = {"Origin": f"https://{NAME}"}
        assert alice.post("/train-jobs", json={}, headers=own).status_code == 422
        foreign = {"Origin": "https://example.com"}
        assert alice.post("/train-jobs", json={}, headers=foreign).status_code == 403
        other = alice.get("/models", headers={"Host": "example.com"})
        # nginx has one site and asks the service; Caddy knows no site of this name.
        assert other.status_code == 421 or (other.status_code, other.content) == (200, b"")
    with proxy.client() as nobody:
        assert nobody.get("/models").status_code == 401


def test_an_upload_arrives_while_it_is_sent(proxy):
    arrived = []

    def body() -> Iterator[bytes]:
        yield b"\0" * HALF
        folder, deadline = proxy.server.data_dir / "uploads", time.monotonic() + 30
        while time.monotonic() < deadline:
            arrived.append(sum(file.stat().st_size for file in folder.iterdir()))
            if arrived[-1] >= HALF / 2:
                break
            time.sleep(0.05)
        yield b"\0" * HALF

    with proxy.client("alice") as alice:
        answer = alice.put("/datasets/large", content=body())
    assert answer.status_code == 422  # whole, and no archive
    assert arrived[-1] >= HALF / 2


def test_events_arrive_as_they_are_made(proxy):
    with proxy.client("alice") as alice:
        alice.put("/datasets/watched", content=archive()).raise_for_status()
        request = {"dataset": "watched", "steps": 10}
        job = alice.post("/train-jobs", json=request).raise_for_status().json()
        origin = f"https://127.0.0.1:{proxy.port}"
        stream = {"Accept": "text/event-stream"}
        with alice.stream("GET", origin + job["links"]["events"], headers=stream) as events:
            lines = (line for line in events.iter_lines() if line.startswith("event: "))
            assert next(lines) == "event: queued"
            with proxy.client("alice") as other:  # the job has no other event before this
                other.post(origin + job["links"]["cancel"]).raise_for_status()
            assert list(lines) == ["event: cancelled"]


def test_a_browser_signs_in(proxy):
    from playwright.sync_api import sync_playwright

    needs(CHROMIUM, "apt-get install chromium")
    rule = f"--host-resolver-rules=MAP {NAME}:443 127.0.0.1:{proxy.port}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, rule])
        context = browser.new_context(ignore_https_errors=True)
        page = context.new_page()
        failed: list[str] = []
        page.on(
            "response", lambda a: failed.append(a.url) if a.status not in (200, 204, 401) else None
        )
        page.goto(f"https://{NAME}{proxy.server.path}/#/models")
        page.get_by_label("Key", exact=True).fill(proxy.server.keys["alice"])
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1, name="Models")).to_be_visible(timeout=30_000)
        (cookie,) = context.cookies()
        assert (cookie["secure"], cookie["httpOnly"]) == (True, True)
        assert cookie["path"] == f"{proxy.server.path}/"
        assert failed == []
        browser.close()
