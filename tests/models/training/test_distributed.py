"""Several processes, one model: real processes under torchrun, gradients over gloo."""

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from models.training.distributed import ProcessGroup

STEPS = 12


@pytest.mark.parametrize("micro_batch_size", [None, 3])
@pytest.mark.parametrize(("batch_size", "size"), [(8, 1), (8, 2), (7, 3), (2, 4)])
def test_every_slot_of_a_batch_is_worked_on_once(batch_size, size, micro_batch_size):
    parts = [
        list(part)
        for rank in range(size)
        for part in ProcessGroup(rank, size).share(batch_size, micro_batch_size)
    ]
    assert sorted(chain.from_iterable(parts)) == list(range(batch_size))
    assert all(len(part) <= (micro_batch_size or batch_size) for part in parts)


# What each process runs: the losses, and the weights at the end.
TRAINER = """
import json, sys
import numpy as np
import torch
from models.images.dataset import Dataset
from models.training.defaults import DatasetFacts
from models.training.config import resolve_config
from models.training.distributed import ProcessGroup
from models.training.state import TrainState
from models.training.train import train

torch.set_num_threads(1)
given = json.loads(sys.argv[1])
images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
dataset = Dataset(images, np.arange(40, dtype=np.int64) % 2, ("a", "b"))
net = {"block_out_channels": (8, 8), "norm_num_groups": 4, "attention_head_dim": 4}
facts = DatasetFacts(40, 1, (8, 8), ("a", "b"))
config = resolve_config(facts, seed=3, net=net, **given)
group = ProcessGroup.from_environment("cpu")
state = TrainState.create(config, dataset)
losses = [step.loss for step in train(state, dataset, group)]
weights = torch.cat([p.detach().reshape(-1) for p in state.parameters().values()])
if group.is_first:
    np.savez(sys.argv[2], losses=losses, weights=weights.numpy(), step=state.step)
group.leave()
"""


def run(folder: Path, processes: int, **given: object) -> dict[str, np.ndarray]:
    script, out = folder / "trainer.py", folder / f"{processes}.npz"
    script.write_text(TRAINER)
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    subprocess.run(
        [*launcher, str(script), json.dumps(given), str(out)],
        env=environment,
        check=True,
        timeout=120,
    )
    with np.load(out) as kept:
        return dict(kept)


def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    given = {"steps": STEPS, "batch_size": 9, "preset": "edm", "loss_weighting": "learned"}
    one, two = run(tmp_path, 1, **given), run(tmp_path, 2, **given)
    assert len(one["losses"]) == STEPS
    assert np.allclose(one["losses"], two["losses"], rtol=1e-4)
    assert np.allclose(one["weights"], two["weights"], atol=1e-4)


def test_two_processes_end_a_budget_of_time_at_the_same_step(tmp_path):
    ended = run(tmp_path, 2, minutes=0.03, batch_size=8)
    assert len(ended["losses"]) == ended["step"] > 0


def test_a_group_of_one_needs_no_others():
    group = ProcessGroup.single()
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    assert group.is_first
    assert group.broadcast(0.25) == 0.25
    assert group.sum_gradients([parameter], torch.tensor(2.0)) == 2.0
    assert parameter.grad.tolist() == [1.0, 1.0, 1.0]
