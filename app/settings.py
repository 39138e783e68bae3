"""The settings of the API and its engine, read once, in `main`.

`python -m app.settings` prints the table of all settings in docs/settings.md.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval
from typing_extensions import Doc

from host.environment import Items, table
from models.engine.batcher import Batching
from models.nets.precision import FloatChoice
from store.access.owners import Quotas
from store.locations import Locations
from store.upkeep.keeping import Keeping
from store.urls import BUCKET
from worker.settings import RootPath, WorkerSettings

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Settings:
    """The settings; host.environment reads them, `port` from DIFFUSION_PORT."""

    host: Annotated[str, Doc("the address on which the API listens")] = "127.0.0.1"
    port: Annotated[
        int, Interval(ge=0, le=65535), Doc("the port on which the API listens; 0 takes a free one")
    ] = 8000
    locations: Locations = field(default_factory=Locations)

    open: Annotated[
        bool, Doc("answer everybody who can reach the service, and let it listen without keys")
    ] = False
    root_path: RootPath = ""
    trusted_hosts: Annotated[
        tuple[str, ...],
        Items(
            r"\*|(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?",
            "names of hosts such as `images.example.org`, separated by commas; `*.` before a name "
            "is any of its subdomains, `*` any name",
        ),
        Doc("names by which callers may call the service, beside addresses and this machine's own"),
    ] = ()
    proxies: Annotated[
        tuple[str, ...],
        Items(r"[0-9a-fA-F.:]+(/[0-9]{1,3})?", "addresses or networks, separated by commas"),
        Doc(
            "proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed; by default none"
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[str, ...],
        Items(
            r"\*|(?!http://[^/]*:80$|https://[^/]*:443$)[a-z][a-z0-9+.-]*://[a-z0-9.:\[\]_-]+",
            "origins such as `https://example.org`, without a path, separated by commas; "
            "`*` is any",
        ),
        Doc("web pages of these origins may use the API; by default none but the console"),
    ] = ()

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Doc("the lowest level that is logged")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json"],
        Doc("`console` is readable text; `auto` means console on a terminal, else JSON"),
    ] = "auto"

    quotas: Quotas = field(default_factory=Quotas)
    keeping: Keeping = field(default_factory=Keeping)
    example_model: Annotated[
        bool, Doc("whether an empty service begins with the model `emoji`")
    ] = True

    # The bounds of one request.
    max_upload_bytes: Annotated[
        int, Ge(1), Doc("largest request body, other than an uploaded archive")
    ] = 32 * MEBIBYTE
    max_dataset_bytes: Annotated[int, Ge(1), Doc("largest archive of images")] = 8192 * MEBIBYTE
    max_model_bytes: Annotated[int, Ge(1), Doc("largest archive of a model")] = 8192 * MEBIBYTE
    max_pixels: Annotated[
        int, Ge(1), Doc("most pixels of one image, and of all images of one answer")
    ] = 4096 * 4096
    max_images_per_request: Annotated[
        int, Ge(1), Doc("most images of one answer of `POST /sample`; a larger order becomes a job")
    ] = 64
    max_images_per_job: Annotated[int, Ge(1), Doc("most images of such a job")] = 10_000
    max_inference_steps: Annotated[int, Ge(1), Doc("most steps of a sampling request")] = 1000
    max_step_pixels: Annotated[
        int, Ge(1), Doc("most steps times pixels of a request that adds noise step by step")
    ] = 1024 * 256 * 256

    import_buckets: Annotated[
        tuple[str, ...],
        Items(BUCKET, "names of buckets, separated by commas"),
        Doc("buckets of S3 that anybody may fetch datasets from, by the service's credentials"),
    ] = ()

    features_folder: Annotated[
        Path | None,
        Doc("folder with DINOv2 (`config.json`, `model.safetensors`), for evaluations that use it"),
    ] = None

    # The bounds of all requests together.
    max_waiting: Annotated[
        int, Ge(1), Doc("most waiting requests; the next is answered 503 with a `Retry-After`")
    ] = 256
    max_waiting_walks: Annotated[
        int, Ge(1), Doc("the same for requests that add noise step by step")
    ] = 8
    drain_seconds: Annotated[
        int, Ge(1), Doc("from SIGTERM on, the time for requests that have begun; then they end")
    ] = 25
    noise_seconds: Annotated[float, Gt(0), Doc("longest time of one `POST /noise`")] = 120.0
    noise_processes: Annotated[
        int, Ge(0), Doc("processes that answer `POST /noise`; 0 means one more than cores")
    ] = 0

    recipe: Annotated[
        bool, Doc("images carry how they were made, for `POST /sample/again`; 0 leaves it out")
    ] = True

    # The sampling engine.
    engine_batching: Annotated[
        Batching,
        Doc("`step`: requests share network calls at every step; the others are for comparison"),
    ] = "step"
    engine_precision: Annotated[
        FloatChoice,
        Doc("precision of the network, unless a request names one; `auto` is the faster one"),
    ] = "auto"
    engine_model_bytes: Annotated[
        int,
        Ge(1),
        Doc("most bytes of weights that the engine keeps; the least recently used are evicted"),
    ] = 4096 * MEBIBYTE


if __name__ == "__main__":
    print(*table(Settings, WorkerSettings), sep="\n")
