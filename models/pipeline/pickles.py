"""Checkpoints that are pickles, read without running anything that they name.

Files of torch are read by torch.load with weights_only. Other pickles, as EDM's, are read by an
unpickler that can put tensors together. Whatever else a pickle names, functions and classes and the
source code that EDM packs beside its networks, becomes an `Inert`.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.fields import Invalid

_OF_TORCH = pickle.dumps(torch.serialization.MAGIC_NUMBER, 2)  # how files of before torch 1.6 begin


class Inert:
    """An object of a pickle: the name of its class where EDM gives it, and its state. It does
    nothing."""

    kind = ""
    state: object = None

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def get(self, name: str) -> Any:
        """Return an attribute that the object was saved with, or None."""
        return self.state.get(name) if isinstance(self.state, Mapping) else None

    def module(self, name: str) -> "Inert | None":
        """Return a part of a torch module."""
        module = (self.get("_modules") or {}).get(name)
        return module if isinstance(module, Inert) else None

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a torch module, as its state_dict names them."""
        found: dict[str, Tensor] = {}
        for kept in ("_parameters", "_buffers"):
            for name, tensor in (self.get(kept) or {}).items():
                if isinstance(tensor, Tensor):
                    found[name] = tensor.detach()
        for name in self.get("_modules") or {}:
            if (module := self.module(name)) is not None:
                found |= {f"{name}.{key}": tensor for key, tensor in module.tensors().items()}
        return found


def read_checkpoint(path: Path) -> object:
    """Return what a file of torch, of safetensors or of EDM holds, on the CPU.

    Raises Invalid where that is something else, or would need code to be run.
    """
    try:
        return _read(path)
    except OSError:
        raise
    except Exception as error:  # damaged pickles raise anything
        reason = " ".join(str(error).split())[:300]
        raise Invalid.because(f"{path.name} cannot be read as weights alone: {reason}") from error


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        return load_file(path)
    if zipfile.is_zipfile(path):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(Inert, name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    with path.open("rb") as file:
        begins = file.read(len(_OF_TORCH))
        file.seek(0)
        if begins == _OF_TORCH:
            return torch.load(file, map_location="cpu", weights_only=True)
        return _Unpickler(file).load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _BUILDERS.get(f"{module}.{name}", Inert)


def _storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


def _module_of_edm(meta: Mapping[str, Any]) -> Inert:
    module = Inert()
    module.kind, module.state = str(meta["class_name"]), meta["state"]
    return module


_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch.storage._load_from_bytes": _storage,
    "torch_utils.persistence._reconstruct_persistent_obj": _module_of_edm,
}
