"""A trainer in a separate process: it answers each line of JSON on standard input with one line.

The trainer's clock stands still between requests.

{"train": 2.5}          train for the given seconds, at least one step: steps, images, seconds
{"sample": FILE.npy, "labels": [3, ...], "num_inference_steps": 50}
                        save images, uint8 (N, H, W, C), one per label; the label is used if the
                        trainer has classes
"""

import contextlib
import json
import os
import sys
import time
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SAMPLING_BATCH = 256


class Trainee(Protocol):
    """A trainer; `step` takes the used share of the budget, `sample` gives (N, C, H, W), 0..1."""

    num_parameters: int
    num_operations: int  # of one image through the network
    images_per_step: int

    def step(self, progress: float) -> float: ...

    def sample(self, labels: Tensor, num_inference_steps: int) -> Tensor: ...


def serve(create: Any) -> None:
    """Make the trainee by `create(**arguments)` from the command line's JSON, and answer requests.

    The argument `budget`, in seconds, is not passed on: progress is the used share of it.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # libraries print to standard output
        arguments = json.loads(sys.argv[1])
        budget = arguments.pop("budget")
        trainee = create(**arguments)
        clock = Clock(trainee, budget)
        facts = {
            "num_parameters": trainee.num_parameters,
            "num_operations": trainee.num_operations,
            "images_per_step": trainee.images_per_step,
        }
        print(json.dumps(facts), file=answers, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            if "train" in request:
                answer = clock.train(request["train"])
            elif "sample" in request:
                answer = save_samples(trainee, request.pop("sample"), **request)
            else:
                answer = trainee.check(**request)
            print(json.dumps(answer), file=answers, flush=True)


class Clock:
    """A trainee with the seconds that it has trained."""

    def __init__(self, trainee: Trainee, budget: float) -> None:
        self._trainee, self._budget = trainee, budget
        self._elapsed = 0.0

    def train(self, seconds: float) -> dict[str, float]:
        steps, loss, started, past = 0, 0.0, time.perf_counter(), 0.0
        while not steps or past < seconds:
            loss = self._trainee.step(min(1.0, (self._elapsed + past) / self._budget))
            steps += 1
            past = time.perf_counter() - started
        self._elapsed += past
        images = steps * self._trainee.images_per_step
        return {"steps": steps, "images": images, "seconds": past, "loss": loss}


@torch.no_grad()
def save_samples(
    trainee: Trainee, path: str, labels: list[int], num_inference_steps: int
) -> dict[str, float]:
    started = time.perf_counter()
    batches = [
        trainee.sample(part, num_inference_steps)
        for part in torch.tensor(labels, device=DEVICE).split(SAMPLING_BATCH)
    ]
    x = torch.cat(batches).clamp(0, 1).permute(0, 2, 3, 1)
    np.save(path, (255 * x).round().to(torch.uint8).cpu().numpy())
    return {"seconds": time.perf_counter() - started}


@torch.no_grad()
def operations(net: nn.Module, *inputs: Tensor | None) -> int:
    """Count the operations in convolutions and matrix products; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        net(*inputs)
    return int(counter.get_total_flops())
