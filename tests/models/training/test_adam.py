"""Adam beside torch's own classes, and what a training loads."""

import subprocess
import sys

import pytest
import torch

from models.training.adam import Adam

TRAINING = """
import sys
import numpy as np
from models.evaluation.features import train_classifier
from models.images.dataset import Dataset
from models.training.config import resolve_config
from models.training.defaults import DatasetFacts
from models.training.state import TrainState
from models.training.train import train

images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
dataset = Dataset(images, np.arange(40) % 2, ("dark", "light"))
net = {"block_out_channels": (8, 8), "norm_num_groups": 4, "attention_head_dim": 4}
facts = DatasetFacts(40, 1, (8, 8), dataset.class_names)
config = resolve_config(facts, steps=2, batch_size=8, net=net, loss_weighting="learned")
assert len(list(train(TrainState.create(config, dataset), dataset))) == 2
train_classifier(dataset, images_seen=256)
assert not {"torch._dynamo", "sympy"} & sys.modules.keys()
"""


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"betas": (0.9, 0.99), "fused": True}, {"betas": (0.9, 0.99), "fused": True}),
        ({"weight_decay": 0.01}, {"weight_decay": 0.01}),
    ],
    ids=["fused", "decay"],
)
def test_it_is_torchs_own_to_the_bit(ours, theirs):
    """Also of a parameter that has no gradient at some steps."""
    kind = torch.optim.AdamW if "weight_decay" in theirs else torch.optim.Adam
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((5, 3, 3, 3), (7,))]
    mine, other = ([torch.nn.Parameter(p.clone()) for p in start] for _ in range(2))
    adam, peer = Adam(mine, **ours), kind(other, lr=0.0, **theirs)
    for step in range(10):
        adam.zero_grad()
        for group in peer.param_groups:
            group["lr"] = 0.01 / (step + 1)
        for i, (p, q) in enumerate(zip(mine, other, strict=True)):
            gradient = torch.randn(p.shape, generator=generator)
            p.grad, q.grad = (None, None) if i == 1 and step % 3 == 0 else (gradient, gradient)
        adam.step(0.01 / (step + 1))
        peer.step()
        assert all(torch.equal(p, q) for p, q in zip(mine, other, strict=True))


def test_a_training_does_not_load_torchs_compiler():
    subprocess.run([sys.executable, "-c", TRAINING], check=True)
