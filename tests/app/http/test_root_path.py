"""The service below a path of a proxy's, which passes the path on or strips it."""

import re
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, expect

from app.main import create_app
from app.settings import Settings
from host.environment import InvalidSetting, read_settings
from store.access.keys import create_key
from store.database import open_database
from store.jobs.events import add_event
from store.locations import Locations
from tests.app.access.test_guard import GUARDED, address, archive

ROOT_PATH = "/diffusion"
VALUES = {"dataset": "digits", "model": "faces", "image": "0", "trash": "0", "pictures": "0"}
REFERENCE = re.compile(r'(?:src|href|spec-url)="([^"#]+)"')


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    return Settings(
        locations=Locations(tmp_path_factory.mktemp("data")),
        root_path=ROOT_PATH,
        example_model=False,
        max_upload_bytes=100_000,
    )


@pytest.fixture(scope="module")
def key(settings) -> str:
    database = open_database(settings.locations.database_url)
    _, key = create_key(database, "alice", ["read", "sample", "train", "datasets"])
    database.close()
    return key


@pytest.fixture(scope="module")
def origin(serve, settings, key) -> Iterator[str]:
    with serve(create_app(settings)) as origin:
        yield origin


@pytest.fixture(params=[ROOT_PATH, ""], ids=["kept", "stripped"])
def base(request, origin) -> str:
    """The address that a proxy asks for, when it passes the path on and when it strips it."""
    return origin + request.param


@pytest.fixture
def alice(base, key) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
    with httpx.Client(base_url=base, headers=headers, timeout=20) as client:
        yield client


def links_in(answer: object) -> Iterator[tuple[str, str]]:
    """Yield all links of an answer, with their names."""
    if isinstance(answer, list):
        for item in answer:
            yield from links_in(item)
    elif isinstance(answer, dict):
        for name, value in answer.items():
            if name in ("href", "url", "type") and isinstance(value, str):
                yield name, value
            elif name == "links":
                yield from value.items() if isinstance(value, dict) else (("", v) for v in value)
            else:
                yield from links_in(value)


def test_every_link_leads_through_the_proxy(alice, origin, settings, model_archive):
    alice.put("/datasets/digits", content=archive()).raise_for_status()
    edit = alice.post("/datasets/digits/versions", json={"rename": {"cat": "tiger"}})
    alice.post("/datasets/digits/versions", json={"rename": {"tiger": "cat"}}).raise_for_status()
    job = {"dataset": "digits", "steps": 10}
    imported = {"name": "other", "url": "https://example.org/a.zip"}
    later = {"Prefer": "respond-async"}
    made = [
        alice.put("/models/faces", content=model_archive()),
        edit,
        alice.post("/train-jobs", json=job),
        alice.post("/evaluations", json={"model": "faces", "dataset": "digits"}),
        alice.post("/datasets", json=imported),
        alice.post("/sample", json={"model": "faces"}, headers=later),
    ]
    for answer in made:
        answer.raise_for_status()
        assert answer.headers["location"].startswith(f"{ROOT_PATH}/")
        assert alice.get(origin + answer.headers["location"]).status_code == 200
    training = made[2].json()
    database = open_database(settings.locations.database_url)
    with database.session() as session:  # as a worker writes it
        href = f"/train-jobs/{training['id']}/samples/5"
        add_event(session, training["id"], "preview", step=5, href=href)
    database.close()
    listed = [
        alice.get(path).raise_for_status()
        for path in (
            "/datasets",
            "/datasets/digits",
            "/datasets/digits/versions",
            "/datasets/digits/images",
            "/datasets/digits/report",
            "/models",
            "/train-jobs",
            "/evaluations",
            "/sample-jobs",
            "/pictures",
            "/schedules",
            "/problems",
            f"/train-jobs/{training['id']}/samples",
            f"/train-jobs/{training['id']}/checkpoints",
            f"/train-jobs/{training['id']}/events",
        )
    ]
    refused = [alice.get("/models/none"), alice.post("/train-jobs", json={}), alice.get("/audit")]
    assert [answer.status_code for answer in refused] == [404, 422, 403]
    found = {link for answer in (*made, *listed, *refused) for link in links_in(answer.json())}
    names = {name for name, _ in found}
    assert names >= {"self", "preview", "file", "model", "events", "cancel", "url", "href", "type"}
    for name, link in found:
        if link in ("preview", "created", "queued", imported["url"]):  # not links: types of events
            continue
        assert link.startswith(f"{ROOT_PATH}/"), (name, link)
        # Some do not exist yet, and some take POST alone, but a route answers each.
        assert "there is nothing at" not in alice.get(origin + link).text, (name, link)
    for answer in made[2:]:
        alice.post(origin + answer.json()["links"]["cancel"]).raise_for_status()


def test_nothing_is_reached_past_the_guard(origin):
    odd = ("/" + ROOT_PATH, ROOT_PATH * 2, "/%64iffusion")
    with httpx.Client() as nobody:
        for method, path in GUARDED:
            for prefix in ("", ROOT_PATH, *odd):
                there = f"{origin}{prefix}{address(path, VALUES)}"
                assert nobody.request(method, there).status_code == 401, (method, there)


def test_limits_and_repeats_are_those_of_the_route(alice, origin, model_archive):
    body = model_archive() + b"\0" * 100_000  # above the limit of all but archives
    assert alice.put("/models/large", content=body).status_code != 413
    assert alice.post("/sample", content=body).status_code == 413
    once = {"Idempotency-Key": f"of {alice.base_url}"}
    edit = {"name": "other", "url": "https://example.org/a.zip"}
    first = alice.post("/datasets", json=edit, headers=once).raise_for_status()
    for prefix in (ROOT_PATH, ""):
        again = alice.post(f"{origin}{prefix}/datasets", json=edit, headers=once)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["location"] == first.headers["location"]
        assert again.json() == first.json()
    alice.post(origin + first.json()["links"]["cancel"]).raise_for_status()


@pytest.mark.parametrize("page", ["/", "/docs", "/redoc"])
def test_what_a_page_loads_is_below_the_path(base, origin, page):
    with httpx.Client(base_url=base) as browser:
        shown = browser.get(page).raise_for_status().text
        references = REFERENCE.findall(shown)
        assert references
        for reference in references:
            seen = httpx.URL(origin + ROOT_PATH + page).join(reference)
            assert seen.path.startswith(f"{ROOT_PATH}/")
            assert browser.get(seen).status_code == 200, reference
        assert browser.get("/openapi.json").json()["servers"] == [{"url": ROOT_PATH}]


def test_an_address_that_is_nearly_right_is_corrected(base, origin):
    bare = httpx.get(f"{origin}{ROOT_PATH}?a=1")
    assert (bare.status_code, bare.headers["location"]) == (308, f"{ROOT_PATH}/?a=1")
    answer = httpx.get(f"{base}/models/")
    with suppress(KeyError):
        assert urlsplit(answer.headers["location"]).path == f"{ROOT_PATH}/models"
    docs = httpx.get(f"{base}/docs/")
    assert docs.status_code == 307
    assert docs.headers["location"] == f"{origin}{ROOT_PATH}/docs"


def test_the_cookie_is_for_this_path_only(base, key):
    answer = httpx.post(f"{base}/session", json={"key": key}).raise_for_status()
    assert f"Path={ROOT_PATH}/;" in answer.headers["set-cookie"]
    gone = httpx.delete(f"{base}/session").raise_for_status()
    assert f"Path={ROOT_PATH}/;" in gone.headers["set-cookie"]


def test_the_console_works_below_the_path(browser: Browser, origin, key, alice):
    alice.put("/datasets/shown", content=archive()).raise_for_status()
    context = browser.new_context()
    page = context.new_page()
    missing, asked = [], []
    page.on("response", lambda answer: missing.append(answer.url) if answer.status == 404 else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(origin + ROOT_PATH)
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.goto(f"{origin}{ROOT_PATH}/#/datasets/shown")
    picture = page.locator(".picks img").first
    expect(picture).to_be_visible()
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("image => image.naturalWidth") > 0
    assert missing == []
    assert all(url.startswith(f"{origin}{ROOT_PATH}") for url in asked if url.startswith("http"))
    context.close()


@pytest.mark.parametrize(
    "text", ["diffusion", "/diffusion/", "/", "/a b", "/../a", "/a//b", "https://example.org"]
)
def test_what_is_no_path_is_refused(text):
    with pytest.raises(InvalidSetting, match=r"DIFFUSION_ROOT_PATH is .*; it must be a path such"):
        read_settings(Settings, {"DIFFUSION_ROOT_PATH": text})


@pytest.mark.parametrize("path", ["/models", "/static/below", "/docs"])
def test_a_path_that_is_an_address_of_the_service_is_refused(path):
    with pytest.raises(InvalidSetting, match="must not begin with an address of the service"):
        create_app(Settings(root_path=path))
    create_app(Settings(root_path=f"/tools{path}"))
