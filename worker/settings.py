"""What the environment decides for a worker; read once, in `worker.main`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from store.locations import Locations


@dataclass(frozen=True)
class WorkerSettings:
    locations: Locations
    concurrency: int = 1  # jobs at once
    lease_seconds: float = 30.0  # how long a lost worker's job waits for the next
    grace_seconds: float = 30.0  # from SIGTERM to SIGKILL, for a last checkpoint
    niceness: int = 10  # training yields to serving
    threads: int = 0  # of one trainer; 0: all cores
    processes: int = 0  # that share one training; 0: one for each GPU, else one
    device: str = ""  # empty: a GPU where there is one
    webhook_allow_private: bool = False  # else webhooks go to public addresses only

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "WorkerSettings":
        def number(name: str, default: float, low: float) -> float:
            text = environment.get(f"DIFFUSION_{name}") or str(default)
            try:
                value = float(text)
            except ValueError:
                raise ValueError(f"DIFFUSION_{name} is {text!r}; it must be a number") from None
            if not value >= low:
                raise ValueError(f"DIFFUSION_{name} is {text}; it must be at least {low:g}")
            return value

        def flag(name: str) -> bool:
            text = environment.get(f"DIFFUSION_{name}") or "0"
            if text not in ("0", "1"):
                raise ValueError(f"DIFFUSION_{name} is {text!r}; it must be 0 or 1")
            return text == "1"

        return cls(
            locations=Locations.from_environment(environment),
            concurrency=int(number("WORKER_CONCURRENCY", 1, 1)),
            lease_seconds=number("LEASE_SECONDS", 30.0, 1.0),
            grace_seconds=number("GRACE_SECONDS", 30.0, 0.0),
            niceness=int(number("TRAIN_NICENESS", 10, 0)),
            threads=int(number("TRAIN_THREADS", 0, 0)),
            processes=int(number("TRAIN_PROCESSES", 0, 0)),
            device=environment.get("DIFFUSION_DEVICE", ""),
            webhook_allow_private=flag("WEBHOOK_ALLOW_PRIVATE"),
        )
