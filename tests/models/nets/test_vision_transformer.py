"""The vision transformer against the same sums written out in numpy, token by token."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.fields import Invalid
from models.nets.vision_transformer import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VisionTransformer,
    VisionTransformerConfig,
    load_vision_transformer,
    normalised,
)

TINY = {
    "model_type": "dinov2",
    "hidden_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 8,
    "patch_size": 4,
    "layer_norm_eps": 1e-3,
    "hidden_act": "gelu",
}
KINDS = {
    "plain": TINY,
    "gated": TINY | {"use_swiglu_ffn": True},
    "registers": TINY | {"model_type": "dinov2_with_registers", "num_register_tokens": 3},
    "no bias": TINY | {"qkv_bias": False},
}


def saved(folder, values, seed=0):
    """The folder of a model with random weights, and these as float64 arrays."""
    net = VisionTransformer(VisionTransformerConfig.from_dict(values))
    generator = torch.Generator().manual_seed(seed)
    weights = {k: torch.randn(v.shape, generator=generator) for k, v in net.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    save_file(weights, folder / "model.safetensors")
    return {k: v.double().numpy() for k, v in weights.items()}


def by_hand(w, values, image):
    """The class token of one image (3, H, W), without a tensor operation of torch."""
    size, side = values["hidden_size"], values["patch_size"]
    kernel = w["embeddings.patch_embeddings.projection.weight"]
    bias = w["embeddings.patch_embeddings.projection.bias"]
    positions = w["embeddings.position_embeddings"][0]
    tokens = [w["embeddings.cls_token"][0, 0] + positions[0]]
    tokens += list(w.get("embeddings.register_tokens", np.zeros((1, 0, size)))[0])
    for top in range(0, image.shape[1], side):
        for left in range(0, image.shape[2], side):
            patch = image[:, top : top + side, left : left + side]
            place = positions[1 + (top // side) * (image.shape[2] // side) + left // side]
            tokens.append([np.sum(kernel[c] * patch) + bias[c] + place[c] for c in range(size)])
    x = np.array(tokens)

    def linear(name, v):
        return w[name + ".weight"] @ v + w.get(name + ".bias", 0.0)

    def norm(name, v):
        scaled = (v - v.mean()) / math.sqrt(v.var() + values["layer_norm_eps"])
        return scaled * w[name + ".weight"] + w[name + ".bias"]

    def mlp(name, v):
        if values.get("use_swiglu_ffn"):
            both = linear(name + ".weights_in", v)
            half = len(both) // 2
            opened = [
                g / (1 + math.exp(-g)) * u for g, u in zip(both[:half], both[half:], strict=True)
            ]
            return linear(name + ".weights_out", np.array(opened))
        up = linear(name + ".fc1", v)
        return linear(name + ".fc2", np.array([u * 0.5 * (1 + math.erf(u / 2**0.5)) for u in up]))

    heads = values["num_attention_heads"]
    width = size // heads
    for i in range(values["num_hidden_layers"]):
        name = f"encoder.layer.{i}"
        seen = [norm(name + ".norm1", v) for v in x]
        q, k, v = (
            np.array([linear(f"{name}.attention.attention.{part}", s) for s in seen])
            for part in ("query", "key", "value")
        )
        mixed = np.zeros_like(x)
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            for a in range(len(x)):
                weight = np.exp([q[a, part] @ k[b, part] / math.sqrt(width) for b in range(len(x))])
                mixed[a, part] = (weight / weight.sum()) @ v[:, part]
        out = [linear(name + ".attention.output.dense", m) for m in mixed]
        x = x + w[name + ".layer_scale1.lambda1"] * np.array(out)
        out = [mlp(name + ".mlp", norm(name + ".norm2", v)) for v in x]
        x = x + w[name + ".layer_scale2.lambda1"] * np.array(out)
    return norm("layernorm", x[0])


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_sums_of_the_paper(kind, tmp_path):
    weights = saved(tmp_path, KINDS[kind])
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    found = load_vision_transformer(tmp_path)(images)
    expected = [by_hand(weights, KINDS[kind], image.double().numpy()) for image in images]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


# torch's cubic departs from a straight line by up to 3/64, the one that it filters with does not.
@pytest.mark.parametrize(("kind", "tolerance"), [("plain", 0.05), ("registers", 1e-5)])
def test_positions_for_more_patches_lie_between_those_that_were_learned(kind, tolerance):
    config = VisionTransformerConfig.from_dict(KINDS[kind] | {"image_size": 32})  # 8 x 8 patches
    net = VisionTransformer(config)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    ramp = torch.stack([rows, columns, torch.ones(8, 8), rows + columns, rows, columns], dim=-1)
    with torch.no_grad():
        net.embeddings.position_embeddings[:, 1:] = ramp.reshape(1, 64, 6)
    finer = net.embeddings._patch_positions(16, 24).reshape(16, 24, 6).detach()
    inner = finer[6:-6, 9:-9]  # at the border there is no next position
    expected_rows = ((torch.arange(16.0)[6:-6] + 0.5) / 2 - 0.5)[:, None].expand(4, 6)
    expected_columns = ((torch.arange(24.0)[9:-9] + 0.5) / 3 - 0.5).expand(4, 6)
    torch.testing.assert_close(inner[:, :, 0], expected_rows, rtol=0, atol=tolerance)
    torch.testing.assert_close(inner[:, :, 1], expected_columns, rtol=0, atol=tolerance)
    torch.testing.assert_close(finer[:, :, 2], torch.ones(16, 24))


def test_images_are_shown_as_imagenet_was():
    grey = torch.full((2, 1, 10, 30), 0.5)  # 0.75 of 0..1
    shown = normalised(grey)
    assert shown.shape == (2, 3, 224, 224)
    expected = (0.75 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(shown, expected[None, :, None, None].expand(2, 3, 224, 224))
    edge = torch.cat([torch.full((1, 3, 8, 4), -1.0), torch.ones(1, 3, 8, 4)], dim=3)
    black, white = normalised(torch.full((1, 3, 8, 8), -1.0)), normalised(torch.ones(1, 3, 8, 8))
    assert (normalised(edge) >= black - 1e-5).all()  # a cubic would overshoot beside an edge
    assert (normalised(edge) <= white + 1e-5).all()


def test_a_net_under_a_classifiers_head_is_the_same_net(tmp_path):
    saved(tmp_path / "bare", TINY)
    weights = saved(tmp_path / "head", TINY)
    prefixed = {f"dinov2.{k}": torch.from_numpy(v).float() for k, v in weights.items()}
    prefixed["classifier.weight"] = torch.zeros(3, 12)
    save_file(prefixed, tmp_path / "head" / "model.safetensors")
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    bare, head = (load_vision_transformer(tmp_path / name) for name in ("bare", "head"))
    assert torch.equal(bare(x), head(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "vit"}, r"config.json cannot be used: model_type is 'vit'; .*dinov2"),
        ({"num_attention_heads": 4}, "hidden_size is 6; it must be a multiple of .* 4"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"patch_size": 0}, r"patch_size is 0; it must lie in 1\.\.224"),
        ({"qkv_bias": "yes"}, "qkv_bias is 'yes'"),
        ({"num_hidden_layers": 3}, r"model.safetensors lacks 18 tensors, .*encoder\.layer\.2"),
        ({"image_size": 12}, r"position_embeddings .* shape \(1, 5, 6\); .* \(1, 10, 6\)"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(change, message, tmp_path):
    saved(tmp_path, TINY)
    (tmp_path / "config.json").write_text(json.dumps(TINY | change))
    with pytest.raises(Invalid, match=message):
        load_vision_transformer(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_is_told_what_it_lacks(name, tmp_path):
    saved(tmp_path, TINY)
    (tmp_path / name).write_bytes(b"\x80\x04 neither of them, and perhaps a pickle")
    with pytest.raises(Invalid, match=name):
        load_vision_transformer(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(Invalid, match=f"has no {name}"):
        load_vision_transformer(tmp_path)
