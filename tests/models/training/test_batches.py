"""Which images a step sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.diffusion.noise import Stream, permutation
from models.images.dataset import Dataset
from models.training.batches import BatchOrder, Images, Split
from models.training.config import resolve_config
from models.training.defaults import DatasetFacts


@pytest.fixture
def dataset():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    return Dataset(images, np.arange(40, dtype=np.int64) % 2, ("a", "b"))


def test_each_epoch_visits_every_training_image_once(dataset):
    config = resolve_config(DatasetFacts(40, 1, (8, 8), ("a", "b")), steps=9)
    split = Split.of(dataset, config)
    assert len(split.held_out) == 4
    assert not set(split.held_out.tolist()) & set(split.training.tolist())
    order = BatchOrder(5, split.training, 8)
    seen = torch.cat([order.batch(n) for n in range(9)])  # two epochs of 36
    for epoch in (seen[:36], seen[36:]):
        assert sorted(epoch.tolist()) == split.training.tolist()
    assert seen[:36].tolist() != seen[36:].tolist()
    assert torch.equal(BatchOrder(5, split.training, 8).batch(6), order.batch(6))


def test_images_that_the_archive_sets_apart_are_held_out_all_of_them(dataset):
    apart = np.array([3, 17, 30, 31, 32, 39])
    split = Split.of_seed(replace(dataset, set_apart=apart), seed=1, most=2)
    assert sorted(split.held_out.tolist()) == apart.tolist()
    assert split.training.tolist() == [n for n in range(40) if n not in apart]
    other = Split.of_seed(replace(dataset, set_apart=apart), seed=2, most=2)
    assert split.held_out.tolist() != other.held_out.tolist()


def test_a_permutation_is_a_function_of_seed_index_and_step():
    one = permutation(1, 100, Stream.ORDER)
    assert np.array_equal(one, permutation(1, 100, Stream.ORDER))
    assert not np.array_equal(one, permutation(1, 100, Stream.ORDER, step=1))
    assert not np.array_equal(one, permutation(1, 100, Stream.ORDER, index=1))
    assert not np.array_equal(one, permutation(2, 100, Stream.ORDER))
    assert sorted(one.tolist()) == list(range(100))


@pytest.mark.parametrize("batch_size", [3, 36, 100])
def test_a_batch_may_span_several_epochs(batch_size):
    positions = torch.arange(10, 46)
    order = BatchOrder(0, positions, batch_size)
    row = torch.cat([order.batch(n) for n in range(4)])
    whole = torch.cat([positions[permutation(0, 36, Stream.ORDER, step=e)] for e in range(12)])
    assert torch.equal(row, whole[: 4 * batch_size])


def test_images_come_as_they_are(dataset):
    x0, labels = Images(dataset, torch.device("cpu")).take(torch.tensor([5, 3]))
    assert x0.shape == (2, 1, 8, 8)
    back = ((x0 + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(back, dataset.images[[5, 3]])
    assert labels.tolist() == [1, 1]
