import hashlib
import re

import httpx
import pytest

from app.service.docs_pages import STATIC

_ADDRESS = re.compile(r'(?:src|href|spec-url)="([^"]+)"')


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_and_all_it_names_come_from_this_host(client: httpx.Client, page: str) -> None:
    answer = client.get(page)
    assert answer.headers["content-type"].startswith("text/html")
    addresses = _ADDRESS.findall(answer.text)
    assert any(address.endswith(".js") or ".js?" in address for address in addresses)
    for address in addresses:
        assert "//" not in address
        assert client.get("/" + address).status_code == 200, address


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_browser_is_told_to_refuse_every_other_host(client: httpx.Client, page: str) -> None:
    policy = dict(
        rule.split(" ", 1)
        for rule in client.get(page).headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    for sources in policy.values():
        for source in sources.split():
            assert source in ("'none'", "'self'", "'unsafe-inline'", "data:", "blob:")


def test_the_console_s_validator_is_off(client: httpx.Client) -> None:
    script = client.get("/static/docs.js").text
    assert "validatorUrl: null" in script


def test_the_vendored_files_are_the_ones_that_were_noted() -> None:
    noted = re.findall(r"([0-9a-f]{64})  (\S+)", (STATIC / "README.md").read_text())
    assert len(noted) == 3
    for digest, name in noted:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest, name


def test_redoc_asks_no_other_host_for_its_logo() -> None:
    bundle = (STATIC / "redoc" / "redoc.standalone.js").read_text()
    assert not re.search(r'src:"(https?:)?//', bundle)


def test_bundles_are_cached_and_not_sent_twice(client: httpx.Client) -> None:
    first = client.get("/static/redoc/redoc.standalone.js?v=1")
    assert "immutable" in first.headers["cache-control"]
    again = client.get(
        "/static/redoc/redoc.standalone.js?v=1", headers={"If-None-Match": first.headers["etag"]}
    )
    assert again.status_code == 304


def test_the_licences_are_there(client: httpx.Client) -> None:
    assert "Apache License" in client.get("/static/swagger-ui/LICENSE").text
    assert "MIT" in client.get("/static/redoc/LICENSE").text
