"""DINOv2's vision transformer: an image as the vector of its class token.

Oquab et al. 2023, on the blocks of Dosovitskiy et al. 2021, with the layer scale of Touvron et al.
2021 and, in some weights, the registers of Darcet et al. 2024. The weights come from a local folder
in the layout of Hugging Face, config.json and model.safetensors; its parameter names are used here,
so that the file is the state dict. A pickle is never opened, and nothing is downloaded.

    patches --projection--> + positions --blocks--> layernorm --> class token
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Interval
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention, silu

from models.fields import Invalid, check_fields, check_whole
from models.nets.unallocated import unallocated

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MODEL_TYPES = ("dinov2", "dinov2_with_registers")
INPUT_SIZE = 224  # pixels a side; the positions are interpolated to it
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Fields of a config, with the only values that this net implements.
_FIXED = {
    "hidden_act": ("gelu",),
    "num_channels": (3,),
    "apply_layernorm": (True,),
}


@dataclass(frozen=True)
class VisionTransformerConfig:
    """A vision transformer without its weights, named as in the config.json. `image_size` is that
    of the training, whose positions the weights hold."""

    hidden_size: Annotated[int, Interval(ge=1, le=8192)] = 768
    num_hidden_layers: Annotated[int, Interval(ge=1, le=128)] = 12
    num_attention_heads: Annotated[int, Interval(ge=1, le=128)] = 12
    mlp_ratio: Annotated[float, Interval(ge=0.125, le=16)] = 4
    image_size: Annotated[int, Interval(ge=1, le=4096)] = 224
    patch_size: Annotated[int, Interval(ge=1, le=INPUT_SIZE)] = 14
    layer_norm_eps: Annotated[float, Interval(ge=0.0, le=1.0)] = 1e-6
    qkv_bias: bool = True
    use_swiglu_ffn: bool = False
    num_register_tokens: Annotated[int, Interval(ge=0, le=64)] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_whole("image_size", self.image_size, self.patch_size, 4096)
        if self.hidden_size % self.num_attention_heads:
            raise Invalid(
                "hidden_size",
                self.hidden_size,
                f"it must be a multiple of num_attention_heads, {self.num_attention_heads}",
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "VisionTransformerConfig":
        """Return the config of a config.json; fields without influence on the result are ignored.

        Raises Invalid for another kind of model, or a value that is not supported.
        """
        kind = values.get("model_type")
        if kind not in MODEL_TYPES:
            raise Invalid("model_type", kind, f"it must be one of {MODEL_TYPES}")
        for field, allowed in _FIXED.items():
            if values.get(field, allowed[0]) not in allowed:
                raise Invalid(field, values[field], f"it must be {allowed[0]!r}")
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        if kind == "dinov2":
            known["num_register_tokens"] = 0
        else:
            known.setdefault("num_register_tokens", 4)
        return cls(**known)

    @property
    def mlp_size(self) -> int:
        hidden = int(self.hidden_size * self.mlp_ratio)
        return (hidden * 2 // 3 + 7) // 8 * 8 if self.use_swiglu_ffn else hidden


class VisionTransformer(nn.Module):
    """The network: x (B, 3, H, W), prepared by `normalised`, to the class tokens
    (B, hidden_size)."""

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embeddings(x)
        for block in self.encoder.layer:
            tokens = block(tokens)
        token: Tensor = self.layernorm(tokens[:, 0])
        return token


def normalised(x: Tensor, size: int = INPUT_SIZE) -> Tensor:
    """Prepare x (B, 1 or 3, H, W) in [-1, 1] like the training images: RGB, scaled to `size` a
    side, normalised by ImageNet's mean and standard deviation."""
    x = (x.expand(-1, 3, -1, -1) + 1.0) / 2.0
    if x.shape[2:] != (size, size):
        x = interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0.0, 1.0)
    mean, std = (
        torch.tensor(values, device=x.device, dtype=x.dtype)[:, None, None]
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (x - mean) / std


def load_vision_transformer(folder: Path, device: str = "cpu") -> VisionTransformer:
    """Return the model of a folder, for inference.

    Raises Invalid naming the file that is missing or the value that is not supported.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise Invalid.because(
                f"the folder {folder} has no {name}; a DINOv2 model is {CONFIG} and {WEIGHTS}"
            )
    try:
        values = json.loads((folder / CONFIG).read_text())
        if not isinstance(values, dict):
            raise Invalid.because(f"it holds a {type(values).__name__}")
        config = VisionTransformerConfig.from_dict(values)
    except (ValueError, TypeError) as error:
        raise Invalid.because(f"{CONFIG} cannot be used: {error}") from None
    with unallocated():  # a config may ask for more memory than its weights' file fills
        net = VisionTransformer(config)
    _load_weights(net, folder / WEIGHTS)
    return net.to(device, torch.float32).eval().requires_grad_(False)


# Parts --------------------------------------------------------------------------------------------


class Embeddings(nn.Module):
    """Patches, the class token and the registers as tokens (B, 1 + R + P, hidden_size)."""

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.grid = config.image_size // config.patch_size
        # Weights with registers were trained with an anti-aliasing filter here, others without.
        self.antialias = config.num_register_tokens > 0
        size = config.hidden_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size))
        self.register_tokens = (
            nn.Parameter(torch.zeros(1, config.num_register_tokens, size))
            if config.num_register_tokens
            else None
        )
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + self.grid**2, size))
        self.patch_embeddings = PatchEmbeddings(config)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embeddings.projection(x)  # (B, hidden_size, rows, columns)
        rows, columns = patches.shape[2:]
        patches = patches.flatten(2).transpose(1, 2) + self._patch_positions(rows, columns)
        first = self.cls_token + self.position_embeddings[:, :1]
        tokens = [first, patches]
        if self.register_tokens is not None:
            tokens.insert(1, self.register_tokens)  # registers have no position
        return torch.cat([t.expand(len(x), -1, -1) for t in tokens], dim=1)

    def _patch_positions(self, rows: int, columns: int) -> Tensor:
        positions = self.position_embeddings[:, 1:]
        if (rows, columns) == (self.grid, self.grid):
            return positions
        plane = positions.transpose(1, 2).reshape(1, -1, self.grid, self.grid)
        plane = interpolate(plane, (rows, columns), mode="bicubic", antialias=self.antialias)
        return plane.flatten(2).transpose(1, 2)


class PatchEmbeddings(nn.Module):
    """A linear map of each patch."""

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        side = config.patch_size
        self.projection = nn.Conv2d(3, config.hidden_size, side, stride=side)


class Encoder(nn.Module):
    """The blocks, under the weights' name for them."""

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))


class Block(nn.Module):
    """x + l1 attention(norm1 x), then x + l2 mlp(norm2 x)."""

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attention = Attention(config)
        self.layer_scale1 = LayerScale(config.hidden_size)
        self.norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = SwiGLU(config) if config.use_swiglu_ffn else MLP(config)
        self.layer_scale2 = LayerScale(config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale1.lambda1 * self.attention(self.norm1(x))
        x = x + self.layer_scale2.lambda1 * self.mlp(self.norm2(x))
        return x


class LayerScale(nn.Module):
    """The learned scale of a branch, one number per channel."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(size))


class Attention(nn.Module):
    """Self-attention among all tokens. The nesting is that of the weights' names: attention.query,
    output.dense."""

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_attention_heads
        self.attention = nn.ModuleDict(
            {name: nn.Linear(size, size, config.qkv_bias) for name in ("query", "key", "value")}
        )
        self.output = nn.ModuleDict({"dense": nn.Linear(size, size)})

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            self.attention[name](x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = scaled_dot_product_attention(query, key, value)  # (B, heads, tokens, head_dim)
        out: Tensor = self.output["dense"](mixed.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.mlp_size)
        self.fc2 = nn.Linear(config.mlp_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(gelu(self.fc1(x)))
        return out


class SwiGLU(nn.Module):
    """The largest model's MLP (Shazeer 2020): one half of weights_in gates the other."""

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.weights_in = nn.Linear(config.hidden_size, 2 * config.mlp_size)
        self.weights_out = nn.Linear(config.mlp_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.weights_in(x).chunk(2, dim=-1)
        out: Tensor = self.weights_out(silu(gate) * value)
        return out


def _load_weights(net: VisionTransformer, path: Path) -> None:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise Invalid.because(f"{path.name} is not a safetensors file: {error}") from None
    # In the weights of a model with a classifier's head, the same net has a prefix.
    tensors = {name.removeprefix("dinov2."): tensor for name, tensor in tensors.items()}
    expected = net.state_dict()
    if missing := [name for name in expected if name not in tensors]:
        raise Invalid.because(
            f"{path.name} lacks {len(missing)} tensors, the first is {missing[0]}"
        )
    for name, tensor in expected.items():
        found, asked = tuple(tensors[name].shape), tuple(tensor.shape)
        if found != asked:
            raise Invalid.because(
                f"{name} in {path.name} has the shape {found}; {CONFIG} asks for {asked}"
            )
    net.load_state_dict({name: tensors[name] for name in expected}, assign=True)
