"""The latency of one caller while another one floods the service.

Both have a key. The one who floods waits for nothing: its clients send large orders to POST /sample
and large pictures to POST /noise, each again as soon as it is answered. The other sends a small
one, waits for the answer, and pauses. The same is measured without the flood; both take turns,
since a shared machine changes its speed within minutes.

`--quick` measures one turn of a few seconds.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import Server, free_port, save, server, table
from benchmarks.load import Shot, Wave, flood, replay
from benchmarks.noise import BOUNDARY, form, photograph
from benchmarks.sampling import CONFIGS, Net, body, random_net
from models.pipeline.archive import write_model_archive
from store.access.keys import Scope, create_key
from store.database import open_database
from store.locations import Locations

FORM, JSON = f"multipart/form-data; boundary={BOUNDARY}", "application/json"
CALLS = ("POST /noise", "POST /sample")
PAUSE_SECONDS = 0.1  # of the other caller
CLIENTS = 16  # of the flood, for each call
SCOPES: tuple[Scope, ...] = ("sample", "train")
PATIENCE_SECONDS = 1.0  # until a flood has filled the queues, and until they are empty again
TARGET = 2.0


@dataclass(frozen=True)
class Service:
    server: Server
    flooder: str  # keys
    other: str

    def url(self, call: str) -> str:
        return self.server.base + call.split()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--net", choices=list(CONFIGS), default=next(iter(CONFIGS)))
    parser.add_argument("--seconds", type=float, default=10.0, help="of a measurement")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    turns, seconds = (1, 4.0) if options.quick else (options.turns, options.seconds)
    found: dict[str, dict[str, list[float]]] = {call: {"alone": [], "flood": []} for call in CALLS}
    with random_net(options.net) as net, running(net) as service:
        for call in CALLS:  # untimed
            latencies(service, call, 1.0)
        for turn in range(turns):
            print(f"turn {turn}", file=sys.stderr)
            for call, figures in found.items():
                figures["alone"] += latencies(service, call, seconds)
            with flooded(service):
                for call, figures in found.items():
                    figures["flood"] += latencies(service, call, seconds)
        setting = {"net": str(net), "clients": CLIENTS, "pause_seconds": PAUSE_SECONDS}
    save("flood-quick" if options.quick else "flood", {**setting, "seconds": found})
    rows = []
    for call, figures in found.items():
        p50, p95 = ([1e3 * np.percentile(f, q) for f in figures.values()] for q in (50, 95))
        milliseconds = [f"{number:.1f}" for number in (p50[0], p95[0], p50[1], p95[1])]
        rows.append([call, *milliseconds, f"{p50[1] / p50[0]:.2f}", f"{p95[1] / p95[0]:.2f}"])
    header = ["ms", "alone: p50", "p95", "flooded: p50", "p95", "p50 to alone"]
    print(table([*header, f"p95 to alone (at most {TARGET:g})"], rows))


@contextmanager
def running(net: Net) -> Iterator[Service]:
    """Run the service with two keys; each owner has the net under the name in `body`."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data_dir:
        database = open_database(Locations(Path(data_dir)).database_url)
        keys = [create_key(database, owner, SCOPES)[1] for owner in ("flooder", "other")]
        database.close()
        command = [sys.executable, "-m", "app.up"]
        variables = {"DIFFUSION_DATA_DIR": data_dir, "DIFFUSION_PORT": str(port)}
        with server(command, port, "/readyz", **variables) as found:
            write_model_archive(net.folder, archive := Path(data_dir) / "net.zip")
            for key in keys:
                request = urllib.request.Request(
                    f"{found.base}/models/net",
                    archive.read_bytes(),
                    {"Authorization": f"Bearer {key}"},
                    method="PUT",
                )
                urllib.request.urlopen(request, timeout=60).close()
            yield Service(found, *keys)


def latencies(service: Service, call: str, seconds: float) -> list[float]:
    """Send small requests one after another; return the seconds of each.

    Raises AssertionError at an answer other than 200.
    """
    content_type, content = (FORM, form(photograph(64))) if "noise" in call else (JSON, body(10, 0))
    end, found = time.perf_counter() + seconds, []
    while time.perf_counter() < end:
        shots = [Shot(PAUSE_SECONDS, content)]
        (hit,) = replay(service.url(call), shots, content_type, _authorization(service.other))
        if hit.status != 200:
            raise AssertionError(f"{call}: {hit.status} {hit.body[:500]!r}")
        found.append(round(hit.seconds, 5))
    return found


@contextmanager
def flooded(service: Service) -> Iterator[None]:
    order = json.dumps({**json.loads(body(50, 0)), "num_images": 64}).encode()
    waves = [
        Wave(service.url("POST /sample"), order, JSON, CLIENTS),
        Wave(service.url("POST /noise"), form(photograph(512)), FORM, CLIENTS),
    ]
    flooder = multiprocessing.get_context("spawn").Process(
        target=flood, args=(waves, _authorization(service.flooder)), daemon=True
    )
    flooder.start()
    time.sleep(2 * PATIENCE_SECONDS)
    try:
        if not flooder.is_alive():
            raise AssertionError("the flood has ended")
        yield
    finally:
        flooder.terminate()
        flooder.join()
        time.sleep(PATIENCE_SECONDS)


def _authorization(key: str) -> str:
    return f"Authorization: Bearer {key}\r\n"


if __name__ == "__main__":
    main()
