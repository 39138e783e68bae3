"""The files of the console, as a browser asks for them."""

import gzip
import re
from pathlib import Path

import httpx
import pytest

from app.service import console
from app.service.console import FOLDER, Console, imported

VERSION = re.compile(r"console/([0-9a-f]{16})/")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A console of one page, which imports two modules one after the other."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "index.html").write_text('<html>\n  </head>\n<script src="console/main.js">')
    (tmp_path / "main.js").write_text('import { a } from "./lib/a.js";\n')
    (tmp_path / "lib/a.js").write_text("export const a = 1;\n")
    (tmp_path / "lib/b.js").write_text('// Of both.\n\nimport {\n  a,\n} from "./a.js";\n')
    (tmp_path / "pages/one.js").write_text(
        'import { b } from "../lib/b.js";\nconst text = `import { c } from "./c.js";`;\n'
    )
    monkeypatch.setattr(console, "FOLDER", tmp_path)
    return tmp_path


def test_the_page_names_its_files_below_a_version_that_stays_in_the_cache(client: httpx.Client):
    page = client.get("/")
    assert page.headers["Cache-Control"] == "no-cache"
    (version,) = set(VERSION.findall(page.text))
    assert 'src="console/main.js"' not in page.text
    for module in re.findall(r'(?:href|src)="(console/[^"]+)"', page.text):
        answer = client.get(f"/{module}").raise_for_status()
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.content == (FOLDER / module.removeprefix(f"console/{version}/")).read_bytes()


@pytest.mark.parametrize("prefix", ["", "0123456789abcdef/"])
def test_files_of_no_version_and_of_another_are_asked_for_again(client: httpx.Client, prefix):
    address = f"/console/{prefix}main.js"
    answer = client.get(address).raise_for_status()
    assert answer.headers["Cache-Control"] == "no-cache"
    again = client.get(address, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def test_files_are_packed_for_those_who_can_unpack_them(client: httpx.Client):
    content = (FOLDER / "main.js").read_bytes()
    plain = client.get("/console/main.js", headers={"Accept-Encoding": "identity"})
    assert plain.content == content
    assert "Content-Encoding" not in plain.headers
    with client.stream("GET", "/console/main.js", headers={"Accept-Encoding": "gzip"}) as packed:
        sent = b"".join(packed.iter_raw())
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(sent) == content
    assert plain.headers["ETag"] != packed.headers["ETag"]
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("path", ["no-such.js", "../main.py", "%2e%2e/main.py", "pages", ""])
def test_nothing_else_is_served(client: httpx.Client, path):
    assert client.get(f"/console/{path}").status_code == 404


def test_modules_are_followed_by_their_imports_and_not_by_text(folder):
    contents = Console().contents
    assert imported(contents, "main.js") == ["lib/a.js"]
    assert imported(contents, "pages/one.js") == ["lib/b.js", "lib/a.js"]


def test_the_page_says_what_to_load_at_once(folder):
    html = Console().html
    (version,) = set(VERSION.findall(html))
    assert f'<link rel="modulepreload" href="console/{version}/lib/a.js" />' in html
    assert '{"one.js": ["pages/one.js", "lib/b.js"]}' in html


def test_a_changed_file_is_another_version(folder):
    shown = Console()
    before = shown.version
    shown.refresh()
    assert shown.version == before
    (folder / "lib/a.js").write_text("export const a = 2;\n")
    shown.refresh()
    assert shown.version != before
    assert before not in shown.html
    assert shown.contents["lib/a.js"] == b"export const a = 2;\n"
