"""Pages of other origins may use the service if a setting names them."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from host.environment import InvalidSetting, read_settings

ORIGIN = "https://pages.example"
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "PATCH"}


@pytest.fixture(scope="module")
def shared(serve, settings: Settings) -> Iterator[httpx.Client]:
    """A service that ORIGIN may use, and that fails at an address."""
    app = create_app(replace(settings, cors_origins=(ORIGIN, "http://localhost:3000")))

    @app.get("/fault")
    async def fault() -> None:
        raise RuntimeError("a fault")

    with serve(app) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client


def test_it_is_off_by_default(client):
    answer = client.get("/schedules", headers={"Origin": ORIGIN})
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert client.options("/schedules", headers=PREFLIGHT).status_code == 405


def test_a_preflight_is_answered(shared):
    headers = {**PREFLIGHT, "Access-Control-Request-Headers": "content-type,if-none-match,prefer"}
    answer = shared.options("/models/any", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert "prefer" in answer.headers["access-control-allow-headers"]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "origin", ["https://elsewhere.example", "http://pages.example", f"{ORIGIN}:8443", "null"]
)
def test_another_origin_is_not_let_in(shared, origin):
    assert shared.options("/models/any", headers={**PREFLIGHT, "Origin": origin}).is_error
    answer = shared.get("/schedules", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/schedules/linear", 200),
        ("GET", "/nowhere", 404),
        ("PATCH", "/noise", 405),
        ("POST", "/noise", 413),  # by the limit on bodies
        ("GET", "/fault", 500),
    ],
)
def test_every_answer_may_be_read_problems_included(shared, settings, method, path, status):
    content = b"0" * (settings.max_upload_bytes + 1) if status == 413 else None
    answer = shared.request(method, path, content=content, headers={"Origin": ORIGIN})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_star_lets_in_every_origin(serve, settings):
    with serve(create_app(replace(settings, cors_origins=("*",)))) as address:
        answer = httpx.get(f"{address}/schedules", headers={"Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


def test_origins_are_read_from_the_environment():
    found = read_settings(Settings, {"DIFFUSION_CORS_ORIGINS": f"{ORIGIN}, http://[::1]:3000"})
    assert found.cors_origins == (ORIGIN, "http://[::1]:3000")


@pytest.mark.parametrize(
    "text",
    [
        "pages.example",
        f"{ORIGIN}/",
        f"{ORIGIN}:443",  # a browser leaves it out, so it would match nothing
        "http://pages.example:80",
        "https://Pages.example",
        "https://*.example",
        f"{ORIGIN},",
        f"{ORIGIN} http://localhost",
        "null",
    ],
)
def test_what_no_browser_sends_is_refused_at_the_start(text):
    with pytest.raises(InvalidSetting, match=r"DIFFUSION_CORS_ORIGINS is .*origins such as"):
        read_settings(Settings, {"DIFFUSION_CORS_ORIGINS": text})


class _Page(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def pages() -> Iterator[tuple[str, str]]:
    """The origins of two servers of pages."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _Page) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    first, second = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    yield first, second
    for server in servers:
        server.shutdown()
        server.server_close()


ASK = """async service => {
    const body = JSON.stringify({model: "nobody"})
    const headers = {"Content-Type": "application/json", Prefer: "respond-async"}
    const refused = await fetch(`${service}/sample`, {method: "POST", headers, body})
    const tables = await fetch(`${service}/schedules/linear`)
    return {
        status: refused.status,
        problem: (await refused.json()).type,
        id: refused.headers.get("X-Request-ID"),
        etag: tables.headers.get("ETag"),
    }
}"""


def test_a_page_in_a_browser_reads_answers_and_their_headers(serve, settings, browser, pages):
    allowed, other = pages
    context = browser.new_context()
    page = context.new_page()
    with serve(create_app(replace(settings, cors_origins=(allowed,)))) as address:
        page.goto(allowed)
        found = page.evaluate(ASK, address)
        page.goto(other)
        with pytest.raises(Exception, match="Failed to fetch"):
            page.evaluate(ASK, address)
    context.close()
    assert (found["status"], found["problem"]) == (404, "/problems/not-found")
    assert found["id"]
    assert found["etag"].startswith('"')
