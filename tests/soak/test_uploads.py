"""Uploads that lie, climb, link, break off or come byte by byte: each is refused or read rightly,
memory is bounded, and others are served meanwhile."""

import io
import socket
import struct
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
from PIL import Image

from tests.models.images.test_dataset import GOOD, picture, tar_of, zip_of
from tests.soak.conftest import client_of, resident_bytes, say
from tests.up import Service, descendants_of

MEMORY = 200 * 2**20  # bytes by which all processes together may grow
ENTRIES = 100_000
LARGE = 100 * 2**20  # bytes that an entry unpacks to; 64 MiB are allowed
CUT_OFF = 50  # connections that end in the middle of a body


class Watch:
    """A caller of POST /noise, and the most memory of the service, while something else happens."""

    def __init__(self, service: Service) -> None:
        self._service, self._stop = service, threading.Event()
        self.seconds: list[float] = []
        self.statuses: set[int] = set()
        self.most = 0
        self._threads = [threading.Thread(target=run) for run in (self._call, self._weigh)]

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def p95(self) -> float:
        return sorted(self.seconds)[int(0.95 * len(self.seconds))]

    def _call(self) -> None:
        with httpx.Client(base_url=self._service.address(), timeout=60) as client:
            while not self._stop.is_set():
                begun = time.monotonic()
                answer = client.post(
                    "/noise", data={"t": ["100"]}, files={"image": picture(width=64, height=64)}
                )
                self.statuses.add(answer.status_code)
                self.seconds.append(time.monotonic() - begun)
                time.sleep(0.02)

    def _weigh(self) -> None:
        while not self._stop.wait(0.05):
            self.most = max(self.most, weight(self._service))


def weight(service: Service) -> int:
    """Resident bytes of all processes of the service; shared pages count for each."""
    return sum(resident_bytes(pid) for pid in descendants_of(service.process.pid))


# Archives -----------------------------------------------------------------------------------------


def understated(path: Path) -> Path:
    """A picture whose header says it unpacks to ten bytes."""
    return _with_size(path, 100_000, 10)


def overstated(path: Path) -> Path:
    return _with_size(path, 100_000, 4_000_000_000)


def _with_size(path: Path, true: int, told: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in GOOD.items():
            archive.writestr(name, data)
        archive.writestr("bad.png", picture() + bytes(true - len(picture())))
    data = path.read_bytes()
    assert true.to_bytes(4, "little") in data
    path.write_bytes(data.replace(true.to_bytes(4, "little"), told.to_bytes(4, "little")))
    return path


def unpacks_to_much(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in GOOD.items():
            archive.writestr(name, data)
        for n in range(4):
            archive.writestr(f"bad-{n}.png", picture() + bytes(LARGE))
    return path


def unpacks_to_much_tar(path: Path) -> Path:
    """Such entries have to be unpacked, to come to the next."""
    return tar_of(path, GOOD | {f"bad-{n}.png": picture() + bytes(LARGE) for n in range(4)})


def many_entries(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in GOOD.items():
            archive.writestr(name, data)
        for n in range(ENTRIES):
            archive.writestr(f"{n}.png", b"")
    return path


CLIMBERS = {
    "../../../good-3.png": picture(3),
    "/good-4.png": picture(4),
    "..\\..\\good-5.png": picture(5),
}


def climbing(path: Path) -> Path:
    return zip_of(path, GOOD | CLIMBERS)


def climbing_tar(path: Path) -> Path:
    return tar_of(path, GOOD | CLIMBERS)


def links_and_devices(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("soft.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("block.png", tarfile.BLKTYPE),
            ("char.png", tarfile.CHRTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            archive.addfile(info)
        for name, data in GOOD.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def lying_tar(path: Path) -> Path:
    """The header of the last file announces a gigabyte that does not follow."""
    with tarfile.open(path, "w") as archive:
        for name, data in GOOD.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    info = tarfile.TarInfo("bad.png")
    info.size = 2**30
    content = path.read_bytes().rstrip(b"\0")
    padded = content + bytes(-len(content) % 512)
    path.write_bytes(padded + info.tobuf() + picture())
    return path


def too_many_pixels(path: Path) -> Path:
    """A picture of a gigapixel in a few hundred kilobytes."""
    large = io.BytesIO()
    Image.new("1", (32_000, 32_000)).save(large, "PNG")
    return zip_of(path, GOOD | {"large.png": large.getvalue()})


# How many entries of each are rejected, None where the whole is refused.
ARCHIVES: dict[Callable[[Path], Path], int | None] = {
    understated: 1,
    overstated: 1,
    unpacks_to_much: 4,
    unpacks_to_much_tar: 4,
    many_entries: ENTRIES,
    climbing: len(CLIMBERS),
    climbing_tar: len(CLIMBERS),
    links_and_devices: 5,
    lying_tar: None,
    too_many_pixels: 1,
}


def put_archives(client: httpx.Client, folder: Path) -> dict[str, str]:
    """Return what was wrong, by the archive."""
    wrong = {}
    for write, rejected in ARCHIVES.items():
        name = write.__name__.replace("_", "-")
        with write(folder / name).open("rb") as file:
            answer = client.put(f"/datasets/{name}", content=file, timeout=600)
        said = answer.json()
        if rejected is None:
            right = answer.status_code == 422
        else:
            right = (
                answer.status_code == 201
                and said["num_images"] == len(GOOD)
                and said["num_rejected"] == rejected
            )
        if not right:
            wrong[name] = f"{answer.status_code} {answer.text[:300]}"
    return wrong


# Bodies -------------------------------------------------------------------------------------------


def send(address: str, head: list[str], body: bytes, *, cut: bool, bytewise: bool = False) -> bytes:
    """Send a PUT as it is, and return what comes, up to the end of its head; b"" where nothing
    does. `cut` closes our side after the body."""
    host, port = address.removeprefix("http://").split(":")
    lines = ["PUT /datasets/raw HTTP/1.1", "Host: localhost", *head, "", ""]
    received = b""
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection.sendall("\r\n".join(lines).encode())
            for n in range(0, len(body), 1 if bytewise else len(body)):
                connection.sendall(body[n : n + 1] if bytewise else body)
            if cut:
                connection.shutdown(socket.SHUT_WR)
            while b"\r\n\r\n" not in received and (chunk := connection.recv(4096)):
                received += chunk
        except OSError:  # closed or reset, perhaps before all was sent
            pass
    return received


def bodies(archive: bytes) -> dict[str, tuple[list[str], bytes, set[int]]]:
    """What is sent, and the statuses that are right; 0 is no answer, to a body that breaks off.
    What follows a body that is too long is the next request, whose refusal may come first."""
    size, chunked = len(archive), "Transfer-Encoding: chunked"
    whole = b"%x\r\n" % size + archive + b"\r\n0\r\n\r\n"
    return {
        "length too long": ([f"Content-Length: {size + 100}"], archive, {0, 400}),
        "length too short": ([f"Content-Length: {size - 100}"], archive, {400, 422}),
        "length of nothing": (["Content-Length: 0"], archive, {400, 422}),
        "no length": ([], archive, {400, 422}),
        "length beyond all": ([f"Content-Length: {10**15}"], archive, {413}),
        "length of a hundred digits": ([f"Content-Length: {10**100}"], archive, {400, 413}),
        "length below zero": (["Content-Length: -1"], archive, {400}),
        "length of words": (["Content-Length: many"], archive, {400}),
        "two lengths": ([f"Content-Length: {size}", "Content-Length: 5"], archive, {400}),
        "length and chunks": ([f"Content-Length: {size}", chunked], whole, {400}),
        "chunk too short": ([chunked], b"5\r\n" + archive + b"\r\n0\r\n\r\n", {0, 400}),
        "chunk too long": ([chunked], b"%x\r\n" % (size + 100) + archive, {0, 400}),
        "chunk of no number": ([chunked], b"zz\r\n" + archive, {0, 400}),
        "cut in chunks": ([chunked], whole[: size // 2], {0, 400}),
    }


def send_bodies(client: httpx.Client, archive: bytes) -> dict[str, str]:
    """Return what was wrong, by the body."""
    address, wrong = str(client.base_url).rstrip("/"), {}
    for name, (head, body, right) in bodies(archive).items():
        status = status_of(send(address, head, body, cut=0 in right))
        there = client.get("/datasets/raw").status_code
        if status not in right or there != 404:
            wrong[name] = f"{status}, and then the dataset is {there}"
    length = [f"Content-Length: {len(archive)}"]
    if (status := status_of(send(address, length, archive, cut=False, bytewise=True))) != 201:
        wrong["byte by byte"] = str(status)
    return wrong


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def test_each_upload_is_refused_or_read_rightly(start_service, tmp_path):
    service = start_service()
    small = zip_of(tmp_path / "small.zip", GOOD).read_bytes()
    with client_of(service) as client:
        client.put("/datasets/first", content=small).raise_for_status()  # libraries are loaded
        with Watch(service) as alone:
            time.sleep(10.0)
        before = weight(service)
        with Watch(service) as beside:
            wrong = send_bodies(client, small)
            wrong |= put_archives(client, tmp_path)
            for _ in range(CUT_OFF):
                cut(service.address(), small)
        left = tmp_path / "data" / "uploads"
        service.wait_for(lambda: not list(left.iterdir()))
    say(
        "uploads",
        uploads=len(ARCHIVES) + len(bodies(small)) + 1 + CUT_OFF,
        wrong=len(wrong),
        memory=f"{before / 2**20:.0f} MiB before and {beside.most / 2**20:.0f} at most",
        p95_of_noise=f"{1000 * alone.p95:.0f} ms alone and {1000 * beside.p95:.0f} beside",
    )
    assert not wrong, wrong
    assert not list(tmp_path.rglob("good-*.png")), "a file of an archive was unpacked outside"
    assert alone.statuses == beside.statuses == {200}
    assert beside.most < before + MEMORY


def cut(address: str, archive: bytes) -> None:
    host, port = address.removeprefix("http://").split(":")
    head = f"PUT /datasets/raw-cut HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(archive)}"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + archive[: len(archive) // 2])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset
