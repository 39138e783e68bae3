"""Augmentation that does not leak: labels say what was done, and are 0 where nothing was."""

import pytest
import torch

from models.training import augment as module
from models.training.augment import augment


@pytest.fixture
def images():
    return torch.rand(200, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def slots(count):
    return torch.arange(count)


def test_images_that_are_left_alone_are_the_same_to_the_bit(images):
    changed, labels = augment(images, 0.1, True, 0, slots(200), 3)
    alone = (labels == 0).all(1)
    assert 60 < int(alone.sum()) < 180  # 0.9^4.5 of them: 62%
    assert torch.equal(changed[alone], images[alone])
    assert not torch.equal(changed[~alone], images[~alone])


def test_an_image_is_changed_alike_whatever_its_batch(images):
    changed, labels = augment(images, 0.5, True, 7, slots(200), 3)
    part, part_labels = augment(images[50:60], 0.5, True, 7, slots(200)[50:60], 3)
    assert torch.equal(changed[50:60], part)
    assert torch.equal(labels[50:60], part_labels)
    assert not torch.equal(labels, augment(images, 0.5, True, 7, slots(200), 4)[1])


def test_nothing_is_mirrored_where_that_is_not_asked_for(images):
    assert not augment(images, 1.0, False, 0, slots(200), 0)[1][:, 5].any()
    assert augment(images, 1.0, True, 0, slots(200), 0)[1][:, 5].any()


def test_a_mirror_image_is_one(images, monkeypatch):
    for name in ("MAX_SHIFT", "SCALE_STD", "MAX_TURN"):
        monkeypatch.setattr(module, name, 1e-12)
    changed, labels = augment(images, 1.0, True, 0, slots(200), 0)
    mirrored = labels[:, 5] == 1
    assert torch.allclose(changed[mirrored], images[mirrored].flip(3), atol=1e-5)
    assert torch.allclose(changed[~mirrored], images[~mirrored], atol=1e-5)


def test_a_shift_moves_the_image_by_what_its_labels_say():
    image = torch.full((1, 1, 16, 16), -1.0)
    image[0, 0, 8, 8] = 1.0
    many = image.expand(500, 1, 16, 16)
    changed, labels = augment(many, 1.0, False, 0, slots(500), 0)
    still = labels[:, 2:5].abs().amax(1) < 0.05  # hardly scaled or turned
    assert int(still.sum()) >= 1
    light = (changed[still] + 1.0)[:, 0]
    place = torch.arange(16.0)
    x = (light.sum(1) * place).sum(1) / light.sum((1, 2))
    y = (light.sum(2) * place).sum(1) / light.sum((1, 2))
    moved = torch.stack([8.0 - x, 8.0 - y], 1)
    expected = labels[still, :2] * module.MAX_SHIFT * 16
    assert torch.allclose(moved, expected, atol=0.25)
