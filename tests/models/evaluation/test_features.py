"""Feature nets: the same numbers each time, and farther apart the more images differ."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from models.evaluation.distances import frechet_distance, nearest
from models.evaluation.features import (
    MAX_SIDE,
    Pixels,
    RandomNet,
    VisionTransformerFeatures,
    choose_features,
    train_classifier,
)
from models.fields import Invalid
from models.images.dataset import Dataset
from models.nets.vision_transformer import VisionTransformer, VisionTransformerConfig
from models.sampling.generate import Stopped


def digits():
    real = load_digits()
    images = np.round(real.images / 16 * 255).astype(np.uint8)[..., None]
    return Dataset(images, real.target.astype(np.int64), tuple("0123456789"))


def stripes(count=120, size=(8, 8), channels=1, names=("across", "down")):
    """Two classes that no pixel's mean tells apart: stripes in two directions, moved at random."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 2
    phase = random.integers(0, 4, count)
    y, x = np.mgrid[: size[0], : size[1]]
    along = np.where(labels[:, None, None] == 0, y, x) + phase[:, None, None]
    images = (along % 4 < 2) * 180 + random.integers(0, 60, (count, *size))
    images = images.astype(np.uint8)[..., None].repeat(channels, axis=3)
    return Dataset(images, labels.astype(np.int64), names)


def vision_transformer(folder):
    values = {"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1, "patch_size": 56}
    values |= {"num_attention_heads": 2}
    net = VisionTransformer(VisionTransformerConfig.from_dict(values))
    generator = torch.Generator().manual_seed(0)
    tensors = {k: torch.randn(v.shape, generator=generator) for k, v in net.state_dict().items()}
    (folder / "config.json").write_text(json.dumps(values))
    save_file(tensors, folder / "model.safetensors")
    return folder


# The scale of pixels ------------------------------------------------------------------------------


def test_the_digits_are_as_far_apart_as_the_scale_of_pixels_says():
    images = digits().images
    halves, distances = [], []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(images))
        one, other = (Pixels()(images, part) for part in np.array_split(order, 2))
        halves.append(frechet_distance(one, other))
        distances.append(np.median(nearest(other, one)[1]))
    assert 0.26 < np.mean(halves) < 0.32
    assert 2.1 < np.mean(distances) < 2.3  # beside half of the digits only; 2.05 beside 90%


def test_pixels_of_small_images_are_their_own_and_of_large_ones_averages():
    small = stripes(3).images
    expected = (small.reshape(3, -1) / 127.5) - 1
    np.testing.assert_allclose(Pixels()(small), expected, atol=1e-6)
    large = np.full((2, 256, 128, 3), 51, np.uint8)
    features = Pixels()(large)
    assert features.shape == (2, MAX_SIDE * MAX_SIDE // 2 * 3)
    np.testing.assert_allclose(features, 51 / 127.5 - 1, atol=1e-6)


# All nets -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    data = stripes()
    return {
        "pixels": Pixels(),
        "random": RandomNet(1),
        "classifier": train_classifier(data, images_seen=640),
        "vision_transformer": VisionTransformerFeatures(
            vision_transformer(tmp_path_factory.mktemp("dinov2"))
        ),
    }


@pytest.mark.parametrize("name", ["pixels", "random", "classifier", "vision_transformer"])
def test_features_do_not_depend_on_the_batch(name, nets, monkeypatch):
    net, images = nets[name], stripes(21).images
    assert net.name == name
    whole = net(images)
    assert whole.dtype == np.float64
    assert len(whole) == 21
    assert np.array_equal(net(images), whole)
    some = np.array([20, 3, 11])
    np.testing.assert_allclose(net(images, some), whole[some], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("models.evaluation.features.BATCH_SIZE", 4)
    np.testing.assert_allclose(net(images), whole, rtol=1e-4, atol=1e-5)
    with pytest.raises(Stopped):
        net(images, stopped=lambda: True)


@pytest.mark.parametrize("name", ["random", "classifier"])
def test_damaged_images_are_farther_than_real_ones(name):
    data = digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    reference, other = np.array_split(order, 2)
    net = choose_features(data, name)
    noise = np.random.default_rng(1).normal(0, 40, data.images.shape)
    damaged = {
        "noisy": (data.images + noise).clip(0, 255).astype(np.uint8),
        "darker": data.images // 2,
        "mirrored": data.images[:, :, ::-1],
        "without ones": data.images[data.labels != 1],
    }
    real = frechet_distance(net(data.images, reference), net(data.images, other))
    for kind, images in damaged.items():
        positions = other[other < len(images)]
        made = frechet_distance(net(data.images, reference), net(images, positions))
        assert made > 1.5 * real, (kind, made, real)


def test_fixed_weights_are_the_same_whatever_else_was_drawn():
    images = stripes(3, channels=3).images
    torch.manual_seed(1)
    one = RandomNet(3)(images)
    torch.manual_seed(2)
    assert np.array_equal(RandomNet(3)(images), one)


# The classifier -----------------------------------------------------------------------------------


def test_a_classifier_says_how_often_it_is_right_about_images_that_it_has_not_seen():
    data, held_out = stripes(), np.arange(0, 120, 7)
    classifier = train_classifier(data, held_out, images_seen=2000)
    assert classifier.accuracy == 1.0
    found = classifier.classify(classifier(data.images))
    assert np.array_equal(found, data.labels)
    again = train_classifier(data, held_out, images_seen=2000)
    assert np.array_equal(again(data.images), classifier(data.images))


def test_what_a_classifier_is_tested_on_it_does_not_learn():
    data, held_out = stripes(), np.arange(0, 120, 3)
    labels = data.labels.copy()
    labels[held_out] = 1 - labels[held_out]  # wrong ones, which only a look would teach
    assert train_classifier(
        Dataset(data.images, labels, data.class_names), held_out, images_seen=2000
    ).accuracy == pytest.approx(0.0, abs=0.05)


def test_labels_that_mean_nothing_are_guessed():
    data = stripes(400)
    labels = np.random.default_rng(3).integers(0, 2, 400)
    classifier = train_classifier(Dataset(data.images, labels, data.class_names), images_seen=1280)
    assert 0.2 < classifier.accuracy < 0.8


@pytest.mark.parametrize(("size", "channels"), [((8, 24), 3), ((256, 64), 1), ((31, 33), 3)])
def test_images_of_any_size_are_told_apart(size, channels):
    wide = max(1, max(size) // 32)  # stripes that are still seen where images are scaled down
    data = stripes(24, (-(-size[0] // wide), -(-size[1] // wide)), channels)
    images = data.images.repeat(wide, axis=1).repeat(wide, axis=2)[:, : size[0], : size[1]]
    data = Dataset(images, data.labels, data.class_names)
    classifier = train_classifier(data, images_seen=2560)
    assert classifier(images).shape == (24, 64)
    assert (classifier.classify(classifier(images)) == data.labels).mean() > 0.9


# The choice ---------------------------------------------------------------------------------------


def test_data_with_classes_gets_a_classifier_and_other_data_fixed_weights(monkeypatch, tmp_path):
    monkeypatch.setattr("models.evaluation.features._enough_images", lambda count: 256)
    assert choose_features(stripes()).name == "classifier"
    assert choose_features(stripes(names=())).name == "random"
    assert choose_features(stripes(names=("one",))).name == "random"
    assert choose_features(stripes(), "pixels").name == "pixels"
    folder = vision_transformer(tmp_path)
    assert choose_features(stripes(), str(folder)).name == "vision_transformer"


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("classifier", "features is 'classifier', but the data has 0 classes; .* at least 2"),
        ("no/such/folder", "no/such/folder has no config.json"),
    ],
)
def test_what_cannot_be_had_is_refused(features, message):
    with pytest.raises(Invalid, match=message):
        choose_features(stripes(names=()), features)


def test_whoever_leaves_stops_the_classifiers_training():
    with pytest.raises(Stopped):
        choose_features(stripes(), stopped=lambda: True)
