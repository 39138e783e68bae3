"""A large order of images, made by one worker and by two, each with one core.

Each measurement is from the job's record to its zip of all images, with the start of its processes.
The second worker is there before the job, and stopped (SIGSTOP) while the first works alone. The
images of both ways are compared, to the bit.

`--images` are those of the order, `--rounds` how often both are measured.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import in_turn, ratio, save, table
from benchmarks.sampling import random_net
from host.environment import to_environment
from models.pipeline.folder import weights_digest
from models.sampling.request import SampleRequest
from store.artifacts import ArtifactStore
from store.database import Database, open_database
from store.jobs import requests
from store.jobs.configs import SampleJobConfig
from store.jobs.sample_images import archive_key
from store.locations import Locations, valkey_socket
from store.nodes import live_nodes
from store.valkey import start_valkey
from worker.queue import make_queue, submit

STEPS = 20


class Orders:
    """A database, a queue, a model, and two workers with a core each."""

    def __init__(self, folder: Path, net: Path, num_images: int) -> None:
        self.locations = Locations(folder)
        self.database: Database = open_database(self.locations.database_url)
        self.artifacts = ArtifactStore(self.locations.artifacts_url)
        self.artifacts.upload_folder(net, "models/net")
        request = SampleRequest(seed=1, num_images=num_images, num_inference_steps=STEPS)
        self.config = SampleJobConfig(request.to_dict(), "models/net", weights_digest(net))
        self.queue = make_queue(self.locations.redis_url)
        self.workers = [self._worker(core) for core in (0, 1)]
        while len(live_nodes(self.database, "worker")) < len(self.workers):
            time.sleep(0.1)
        self.archives: set[str] = set()

    def _worker(self, core: int) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, **to_environment(self.locations), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            ["taskset", "--cpu-list", str(core), sys.executable, "-m", "worker.main", "sample"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def alone(self) -> float:
        """Return the seconds of an order that the first worker makes."""
        self.workers[1].send_signal(signal.SIGSTOP)
        try:
            return self.together()
        finally:
            self.workers[1].send_signal(signal.SIGCONT)

    def together(self) -> float:
        job = requests.create_job(
            self.database, "sample", model_name="net", config=self.config.to_dict()
        )
        submit(self.queue, job.id, "sample")
        while not (job := requests.get_job(self.database, job.id)).done:
            time.sleep(0.1)
        if job.status != "succeeded" or job.finished_at is None:
            raise RuntimeError(f"the job {job.status}: {job.error_message}")
        archive = self.artifacts.get_bytes(archive_key(job.id))
        self.archives.add(hashlib.sha256(archive).hexdigest())
        return (job.finished_at - job.created_at).total_seconds()

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.database.close()


@contextmanager
def orders(num_images: int) -> Iterator[Orders]:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
        random_net("8 px") as net,
    ):
        folder = Path(name)
        valkey = start_valkey(folder, valkey_socket(folder))
        place = Orders(folder, net.folder, num_images)
        try:
            yield place
        finally:
            place.close()
            valkey.kill()
            valkey.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with orders(options.images) as place:
        figures = in_turn({"one": place.alone, "two": place.together}, options.rounds)
        if len(place.archives) != 1:
            raise RuntimeError("the images of one worker and of two differ")
    share = ratio(figures, "two", "one")
    rows = [[name, *(f"{value:.1f}" for value in values)] for name, values in figures.items()]
    print(table(["workers", *(f"round {i + 1}, s" for i in range(options.rounds))], rows))
    print(f"two workers take {share:.2f} of the time of one; the images are the same, to the bit")
    save("orders", {"images": options.images, "steps": STEPS, "seconds": figures, "share": share})


if __name__ == "__main__":
    main()
