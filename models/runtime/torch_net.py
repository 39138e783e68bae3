"""The network through torch: on GPUs as CUDA graphs, on CPUs eager."""

import copy
from collections import Counter
from functools import cache, partial

import torch
from torch import Tensor

from models.diffusion.model import DiffusionModel
from models.fields import Invalid
from models.nets.precision import FloatPrecision, Precision, PrecisionChoice, Ranges
from models.nets.unet import UNet
from models.runtime.cuda_graphs import GraphedNet, GraphPool
from models.runtime.net import EngineModel

# Few, so that everything prepared for a width (a CUDA graph, oneDNN's plans) is used again.
WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
CALLS_BEFORE_CAPTURE = 3  # of a width


def torch_engine_model(model: DiffusionModel) -> EngineModel:
    """Return a model as the engine runs it."""
    on_gpu = model.device.type == "cuda"
    if on_gpu:  # otherwise convolutions round what they multiply to 10 bits
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    graphs = _shared_graphs() if on_gpu else None

    def net(precision: Precision, ranges: Ranges = ()) -> TorchNet:
        return TorchNet(model, precision, graphs)

    return EngineModel(
        model.config,
        precision=partial(precision_in_torch, on_gpu=on_gpu),
        net=net,
        num_bytes=sum(p.numel() * p.element_size() for p in model.net.parameters()),
        widths=WIDTHS,
        same_rows=False,
        runtime="torch",
    )


def precision_in_torch(choice: PrecisionChoice, on_gpu: bool) -> FloatPrecision:
    """Return the precision that torch computes in where this is asked for. On an H200 calls in
    bfloat16 take a half to a quarter of the time of float32. Raises Invalid for int8."""
    if choice == "int8":
        rule = "int8 is computed by OpenVINO on a CPU; here torch computes networks"
        raise Invalid("precision", choice, rule)
    if choice != "auto":
        return choice
    has_bfloat16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_bfloat16 else "float32"


class TorchNet:
    def __init__(
        self, model: DiffusionModel, precision: Precision, graphs: GraphPool | None
    ) -> None:
        self._net, self._graphs = _in_precision(model.net, precision), graphs
        self._image_size = model.config.image_size
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._graphed: dict[int, GraphedNet | None] = {}
        self._calls: Counter[int] = Counter()
        self.like = torch.empty(0, device=model.device)

    def prepare(self, width: int) -> bool:
        """Capture the graph of a width after a few calls."""
        if self._graphs is None or width in self._graphed:
            return False
        self._calls[width] += 1
        if self._calls[width] <= CALLS_BEFORE_CAPTURE:
            return False
        self._graphed[width] = self._graphs.capture(self._net, self._inputs(width))
        return self._graphed[width] is not None

    @torch.no_grad()
    def __call__(self, x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        x = x.to(self._dtype).contiguous(memory_format=torch.channels_last)
        call = self._graphed.get(len(x)) or self._net
        y: Tensor = call(x, c_noise.contiguous(), label)
        return y

    def _inputs(self, width: int) -> list[Tensor]:
        config, device = self._net.config, self.like.device
        shape = (width, config.in_channels, *self._image_size)
        x = torch.zeros(shape, dtype=self._dtype, device=device)
        inputs = [x.to(memory_format=torch.channels_last), torch.zeros(width, device=device)]
        if config.num_class_embeds is not None:
            inputs.append(torch.zeros(width, dtype=torch.int64, device=device))
        return inputs

    def free_memory(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@cache
def _shared_graphs() -> GraphPool:
    return GraphPool()


def _in_precision(net: UNet, precision: Precision) -> UNet:
    """Return the network itself, or a copy of half the size."""
    if precision == "bfloat16":
        net = copy.deepcopy(net).to(torch.bfloat16)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net
