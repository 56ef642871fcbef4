"""Counts what PyTorch really does, on any machine: every ATen call that moves a tensor through memory."""

from torch.utils._python_dispatch import TorchDispatchMode


def makes_no_pass(func) -> bool:
    """A fresh buffer, or a view of one, reads and writes nothing."""
    return func.overloadpacket.__name__ in ("empty", "empty_like") or func.is_view


class Kernels(TorchDispatchMode):
    """Inside `with Kernels() as kernels:` every ATen call that touches data is appended to `kernels.names`."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not makes_no_pass(func):
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))
