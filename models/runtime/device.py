"""The device for networks, and its errors, without loading torch for nothing."""

from host.devices import has_torch, num_gpus


def device_of_torch() -> str:
    """Return "cuda" where there is a GPU that torch can use, else "cpu"."""
    if not num_gpus() or not has_torch():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def is_out_of_memory(error: Exception) -> bool:
    """Tell by the name, so that torch need not be loaded; a CPU's allocator has no exception of its
    own."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "allocate memory" in str(error)
