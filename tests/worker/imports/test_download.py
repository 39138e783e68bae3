"""Downloads from real servers, most of which misbehave."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.file_server import Asked, a_source
from worker.imports.download import MAX_REDIRECTS, Download
from worker.job_process import JobFailed, Stopped
from worker.public_hosts import anywhere

CONTENT = bytes(range(256)) * 400
HALF = len(CONTENT) // 2
Answer = Callable[[Asked], None]


def fetched(url: str, folder: Path, **options: object) -> bytes:
    path = folder / "archive"
    download(path, **options).fetch(url)
    return path.read_bytes()


def download(path: Path, **options: object) -> Download:
    given = {
        "max_bytes": len(CONTENT),
        "received": lambda here, total: None,
        "pause": lambda seconds: None,
        "allows": anywhere,
        "retry_seconds": (0.0, 0.0),
        **options,
    }
    return Download(path, **given)


def failure(url: str, folder: Path, **options: object) -> tuple[str, str]:
    with pytest.raises(JobFailed) as failed:
        fetched(url, folder, **options)
    return failed.value.code, str(failed.value)


def test_a_file_arrives_with_its_progress(tmp_path):
    told = []
    with a_source(lambda asked: asked.say(CONTENT)) as source:
        content = fetched(source.url(), tmp_path, received=lambda *now: told.append(now))
    assert content == CONTENT
    assert (told[0], told[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))
    assert [here for here, _ in told] == sorted(here for here, _ in told)


def test_a_length_that_is_not_told_is_none(tmp_path):
    told = []
    with a_source(lambda asked: asked.say_chunked(CONTENT)) as source:
        content = fetched(source.url(), tmp_path, received=lambda *now: told.append(now))
    assert content == CONTENT
    assert told[-1] == (len(CONTENT), None)


# Redirects ----------------------------------------------------------------------------------------


def test_redirects_are_followed_also_to_other_hosts_and_relative_ones(tmp_path):
    def answer(asked: Asked) -> None:
        targets = {"/a/pets": "b?x=1#top", "/a/b?x=1": other.url("/c d/é")}
        asked.say(b"", 302, Location=targets[asked.path].encode().decode("latin-1"))

    with a_source(lambda asked: asked.say(CONTENT), "127.0.0.2") as other, a_source(answer) as one:
        assert fetched(one.url("/a/pets"), tmp_path) == CONTENT
        assert [path for path, _ in one.asked] == ["/a/pets", "/a/b?x=1"]
        assert [path for path, _ in other.asked] == ["/c%20d/%C3%A9"]


def test_a_redirect_to_an_address_that_is_not_allowed_is_refused_before_it_is_called(tmp_path):
    with a_source(lambda asked: asked.say(CONTENT), "127.0.0.2") as inner:
        redirect = a_source(lambda asked: asked.say(b"", 307, Location=inner.url()))
        with redirect as outer:
            code, message = failure(outer.url(), tmp_path, allows=lambda a: a == "127.0.0.1")
        assert inner.asked == []
    host = f"127.0.0.2:{inner.server_port}"
    assert code == "address_refused"
    assert message == f"{host} is refused: its host has an address that is not public"


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("ftp://example.org/pets.zip", "must begin with http:// or https://"),
        ("file:///etc/passwd", "must begin with http:// or https://"),
        ("http://me:open-sesame@example.org/", "has credentials in it"),
        ("http://example.org:0/", "port 0"),
    ],
)
def test_a_redirect_to_what_is_no_address_of_http_is_refused(location, said, tmp_path):
    with a_source(lambda asked: asked.say(b"", 301, Location=location)) as source:
        code, message = failure(source.url(), tmp_path)
    assert code == "source_refused"
    assert said in message
    assert "open-sesame" not in message


def test_redirects_without_end_are_refused(tmp_path):
    with a_source(lambda asked: asked.say(b"", 302, Location="/again")) as source:
        code, message = failure(source.url(), tmp_path)
    assert (code, message) == ("source_refused", "the url redirects more than 10 times")
    assert len(source.asked) == 1 + MAX_REDIRECTS


def test_by_default_only_public_addresses_are_called(tmp_path):
    with a_source(lambda asked: asked.say(CONTENT)) as source:
        plain = Download(tmp_path / "archive", 10, lambda *_: None, lambda _: None)
        with pytest.raises(JobFailed, match="not public"):
            plain.fetch(source.url())
        mixed = replace(plain, resolve=lambda host, port: ["1.1.1.1", "127.0.0.1"])
        with pytest.raises(JobFailed, match=r"^pets\.example is refused"):
            mixed.fetch("http://pets.example/")
    assert source.asked == []


# What breaks off ----------------------------------------------------------------------------------


def test_a_broken_download_goes_on_where_it_was(tmp_path):
    def answer(asked: Asked) -> None:
        if "Range" not in asked.headers:
            asked.say(CONTENT[:HALF], length=len(CONTENT), ETag='"1"')
        else:
            begin, headers = asked.part(CONTENT)
            asked.say(CONTENT[begin:], 206, **headers)

    with a_source(answer) as source:
        assert fetched(source.url(), tmp_path) == CONTENT
    (_, first), (_, second) = source.asked
    assert "range" not in first
    assert (second["range"], second["if-range"]) == (f"bytes={HALF}-", '"1"')


def test_a_download_that_breaks_often_is_patient_as_long_as_it_gets_further(tmp_path):
    def answer(asked: Asked) -> None:
        begin, headers = asked.part(CONTENT) if "Range" in asked.headers else (0, {})
        end = begin + len(CONTENT) // 10
        left = len(CONTENT) - begin
        asked.say(CONTENT[begin:end], 206 if begin else 200, length=left, ETag='"1"', **headers)

    with a_source(answer) as source:
        assert fetched(source.url(), tmp_path) == CONTENT
    assert len(source.asked) == 10


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}])
def test_without_a_strong_etag_it_begins_again(headers, tmp_path):
    def answer(asked: Asked) -> None:
        whole = len(source.asked) > 1
        asked.say(CONTENT if whole else CONTENT[:HALF], length=len(CONTENT), **headers)

    with a_source(answer) as source:
        assert fetched(source.url(), tmp_path) == CONTENT
    assert all("range" not in headers for _, headers in source.asked)


def test_two_versions_are_never_mixed(tmp_path):
    newer = CONTENT[::-1]

    def answer(asked: Asked) -> None:
        if len(source.asked) == 1:
            asked.say(CONTENT[:HALF], length=len(CONTENT), ETag='"1"')
        else:
            asked.say(newer, ETag='"2"')  # as If-Range asks for

    with a_source(answer) as source:
        assert fetched(source.url(), tmp_path) == newer


def test_another_part_than_asked_for_is_not_taken(tmp_path):
    def answer(asked: Asked) -> None:
        if "Range" in asked.headers:
            last = len(CONTENT) - 1
            asked.say(CONTENT[1:], 206, Content_Range=f"bytes 1-{last}/{len(CONTENT)}")
        else:
            whole = len(source.asked) > 1
            asked.say(CONTENT if whole else CONTENT[:HALF], length=len(CONTENT), ETag='"1"')

    with a_source(answer) as source:
        assert fetched(source.url(), tmp_path) == CONTENT
    assert len(source.asked) == 3


def test_a_file_that_became_shorter_is_fetched_anew(tmp_path):
    def answer(asked: Asked) -> None:
        if "Range" in asked.headers:
            asked.say(b"", 416, Content_Range="bytes */10")
        elif len(source.asked) == 1:
            asked.say(CONTENT[:HALF], length=len(CONTENT), ETag='"1"')
        else:
            asked.say(CONTENT[:10], ETag='"2"')

    with a_source(answer) as source:
        assert fetched(source.url(), tmp_path) == CONTENT[:10]


def test_a_length_that_is_a_lie_fails_after_a_few_attempts(tmp_path):
    pauses = []
    with a_source(lambda asked: asked.say(CONTENT[:HALF], length=len(CONTENT))) as source:
        code, message = failure(
            source.url(), tmp_path, retry_seconds=(1.0, 5.0), pause=pauses.append
        )
    assert code == "source_unavailable"
    assert "ended the connection before the end of the file; tried 3 times" in message
    assert pauses == [1.0, 5.0]
    assert len(source.asked) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(status, tmp_path):
    def answer(asked: Asked) -> None:
        asked.say(b"", status) if len(source.asked) < 3 else asked.say(CONTENT)

    with a_source(answer) as source:
        assert fetched(source.url(), tmp_path) == CONTENT
    with a_source(lambda asked: asked.say(b"", status)) as source:
        code, message = failure(source.url(), tmp_path)
    assert code == "source_unavailable"
    assert f"answered {status}; tried 3 times" in message


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "source_not_found"), (410, "source_not_found"), (403, "source_refused")],
)
def test_a_refusal_is_not_repeated(status, code, tmp_path):
    with a_source(lambda asked: asked.say(b"secret", status)) as source:
        told = failure(source.url("/pets.zip?signature=open-sesame"), tmp_path)
    assert told == (code, f"127.0.0.1:{source.server_port} answered {status}")
    assert len(source.asked) == 1


def test_no_answer_and_no_host_are_told_apart(tmp_path):
    with a_source(lambda asked: asked.say(CONTENT)) as source:
        pass
    assert "takes no connection" in failure(source.url(), tmp_path)[1]
    assert failure("http://pets.invalid/", tmp_path)[1].startswith("pets.invalid has no address")
    with a_source(lambda asked: asked.say(CONTENT)) as source:
        code, message = failure(source.url().replace("http:", "https:"), tmp_path)
    assert (code, message.split(" with ")[0]) == (
        "source_unavailable",
        "TLS could not be agreed on",
    )


# Bounds -------------------------------------------------------------------------------------------


def test_a_file_that_says_it_is_too_large_is_not_read(tmp_path):
    with a_source(lambda asked: asked.say(b"", length=10**12)) as source:
        code, message = failure(source.url(), tmp_path)
    assert (code, message) == (
        "too_large",
        f"the file has {10**12} bytes; at most {len(CONTENT)} are allowed",
    )


def test_a_file_that_does_not_say_so_is_cut_off_at_the_bound(tmp_path):
    bound = len(CONTENT) - 1
    with a_source(lambda asked: asked.say_chunked(CONTENT)) as source:
        code, message = failure(source.url(), tmp_path, max_bytes=bound)
    assert (code, message) == (
        "too_large",
        f"the file has more than {bound} bytes, which is the limit",
    )
    assert (tmp_path / "archive").stat().st_size <= bound


def test_it_stops_when_it_is_told_to(tmp_path):
    def stop(here: int, total: int | None) -> None:
        if here:
            raise Stopped

    def dribble(asked: Asked) -> None:
        asked.send_response(200)
        asked.end_headers()
        for byte in CONTENT:
            asked.wfile.write(bytes([byte]))
            time.sleep(0.01)

    with a_source(dribble) as source:
        begun = time.monotonic()
        with pytest.raises(Stopped):
            fetched(source.url(), tmp_path, received=stop)
        assert time.monotonic() - begun < 5
