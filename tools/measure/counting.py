"""Counts what a sampler asks of a GPU, on any machine and identically on all: kernels, memory traffic, waiting, peak.

Nothing is timed. Tensors that pretend to lie on a GPU are computed on the CPU, and a dispatch mode sees every ATen call
that is made on them.
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
BUFFERS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "_unsafe_view"}
OVERWRITES = {"normal_", "uniform_", "random_", "fill_", "zero_", "copy_"}
WAITS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "_linalg_check_errors"}


def makes_no_pass(func) -> bool:
    """A fresh buffer, or a view of one, reads and writes nothing."""
    return func.overloadpacket.__name__ in BUFFERS or func.is_view


class Kernels(TorchDispatchMode):
    """Inside `with Kernels() as kernels:` every ATen call that touches data is appended to `kernels.names`."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not makes_no_pass(func):
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@dataclass
class Counts:
    """What was done on the device.

    kernels: launches that read or write a tensor of a latent's size; a draw that comes from the host is one.
    kernels_all: all launches, those on single numbers too.
    moved: read and written, in latents.
    syncs: times that the host waits for a value of the device, or for an event.
    uploads, blocking: tensors smaller than a latent copied to the device, and those of them that the host waits for.
    draws, waited: latents copied to the device, and those of them that the host waits for.
    staged: of `blocking` and `waited`, those that were to be no wait but come from memory that is not pinned, where the
        driver may wait or not.
    downloads: tensors copied to pinned memory of the host, which does not wait.
    peak: most latents alive at once, but for the one that the run was given.
    pinned: most latents of pinned memory alive at once.
    """

    kernels: int = 0
    kernels_all: int = 0
    moved: float = 0.0
    syncs: int = 0
    uploads: int = 0
    blocking: int = 0
    draws: int = 0
    waited: int = 0
    staged: int = 0
    downloads: int = 0
    peak: float = 0.0
    pinned: float = 0.0
    names: list[str] = field(default_factory=list)

    @property
    def waits(self) -> int:
        """Times that the host waits for whatever reason."""
        return self.syncs + self.blocking + self.waited


class OnDevice(Tensor):
    """A tensor that says it lies on the GPU; `host` has its values. Usable only under a `Device`."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor):
        self = Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=GPU,
        )
        self.host = host
        return self

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a tensor of the pretended device, outside `with Device(...)`")


def on_host(value):
    return value.host if isinstance(value, OnDevice) else value


class Bindings(TorchFunctionMode):
    """Does in the open what PyTorch does in C++, out of a dispatch mode's sight: tensors are made from Python numbers
    on the CPU and copied over, and a tensor is copied to the CPU for `tolist`."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist:
            return args[0].cpu().tolist()
        device = kwargs.get("device")
        if func is Tensor.new_tensor and isinstance(args[0], OnDevice):
            func, args, device = torch.tensor, args[1:], GPU
        if func not in (torch.tensor, torch.as_tensor) or isinstance(args[0], Tensor):
            return func(*args, **kwargs)
        kwargs["device"] = "cpu"
        if kwargs.pop("pin_memory", False):
            plain = func(*args, **kwargs)
            return torch.empty(plain.shape, dtype=plain.dtype, pin_memory=True).copy_(plain)
        data = tree_map(lambda value: value.item() if isinstance(value, OnDevice) else value, args[0])
        made = func(data, *args[1:], **kwargs)
        return made if device is None or torch.device(device).type == "cpu" else made.to(GPU)


class Events:
    """What `torch.cuda` has for asking a device how far it is, in the place of it while a `Device` is entered.

    An event is over when the device is `idle` by nature, or when the host has waited for this one or for a later one.
    """

    def __init__(self, device: "Device"):
        self.recorded = self.over = 0
        outer = self

        class Event:
            def __init__(self, *_: object, **__: object):
                self.place = 0

            def record(self, stream: object = None) -> None:
                outer.recorded += 1
                self.place = outer.recorded

            def query(self) -> bool:
                return device.idle or self.place <= outer.over

            def synchronize(self) -> None:
                outer.over = max(outer.over, self.place)
                if device.counting:
                    device.counts.syncs += 1

        class Stream:
            def query(self) -> bool:
                return device.idle

        self.names = {
            "Event": Event,
            "current_stream": lambda device=None: Stream(),
            "current_device": lambda: GPU.index,
        }

    def swap(self) -> None:
        """Puts these into `torch.cuda`, or what was there back."""
        for name, value in list(self.names.items()):
            self.names[name] = getattr(torch.cuda, name)
            setattr(torch.cuda, name, value)


class Device(TorchDispatchMode):
    """A pretended GPU, on which a run on latents of `shape` (float32) is counted: one that is always `idle`, with all
    it was given done, or one that never is, and comes to nothing before the host waits for it.

    Each call between `begin` and `end` is in `counts`. `put` is a free copy to the device; `given` the latent that the
    run starts from, which its caller keeps and which is no part of the peak.
    """

    def __init__(self, shape: Iterable[int], idle: bool = False):
        super().__init__()
        self.numel, self.idle = torch.Size(shape).numel(), idle
        self.counts, self.counting = Counts(), False
        self.alive: list[weakref.ref[OnDevice]] = []
        self.pinned: list[weakref.ref[Tensor]] = []
        self.events = Events(self)
        self.given_storage = 0
        self.bindings = Bindings()

    def __enter__(self):
        if not torch.cuda.is_available():
            # Some calls ask for a driver before any mode sees them.
            torch.cuda._lazy_init = lambda: None
            torch._C._ensureCUDADeviceGuardSet()
        self.events.swap()
        self.bindings.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.bindings.__exit__(*error)
        self.events.swap()

    def put(self, host: Tensor) -> OnDevice:
        made = OnDevice(host)
        self.alive.append(weakref.ref(made))
        self._note_peak()
        return made

    def given(self, host: Tensor) -> OnDevice:
        self.given_storage = host.untyped_storage().data_ptr()
        self.kept = host
        return self.put(host)

    def begin(self) -> None:
        self.counts, self.counting = Counts(), True
        self._note_peak()

    def end(self) -> Counts:
        self.counting = False
        return self.counts

    def latents(self, tensor: Tensor) -> float:
        """The memory behind a device tensor, in latents; 0 for what is smaller than one."""
        if not isinstance(tensor, OnDevice) or tensor.numel() < self.numel:
            return 0.0
        size = min(tensor.numel() * tensor.element_size(), tensor.host.untyped_storage().nbytes())
        return size / (4 * self.numel) if size >= 4 * self.numel else 0.0

    def _note_peak(self) -> None:
        self.alive = [ref for ref in self.alive if ref() is not None]
        storages = {s.data_ptr(): s.nbytes() for ref in self.alive if (t := ref()) is not None for s in [storage(t)]}
        storages.pop(self.given_storage, None)
        self.counts.peak = max(self.counts.peak, self._latents_in(storages.values()))
        self.pinned = [ref for ref in self.pinned if ref() is not None]
        pinned = {s.data_ptr(): s.nbytes() for ref in self.pinned if (t := ref()) is not None for s in [storage(t)]}
        self.counts.pinned = max(self.counts.pinned, self._latents_in(pinned.values()))

    def _latents_in(self, sizes: Iterable[int]) -> float:
        return sum(size for size in sizes if size >= 4 * self.numel) / (4 * self.numel)

    def is_pinned(self, tensor: Tensor) -> bool:
        place = storage(tensor).data_ptr()
        return any(storage(known).data_ptr() == place for ref in self.pinned if (known := ref()) is not None)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if torch.is_inference_mode_enabled() and (made := self._taken_apart(func, args, kwargs)) is not NotImplemented:
            return made
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, OnDevice)]
        target = kwargs.get("device")
        stays = torch.device(target).type != "cpu" if target is not None else bool(given)
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        pins = kwargs.pop("pin_memory", None)
        result = func(*tree_map(on_host, args), **tree_map(on_host, kwargs))
        names = {id(tensor.host): tensor for tensor in given}
        if stays:
            result = tree_map(lambda value: names[id(value)] if id(value) in names else self._made(value), result)
        if pins:
            self.pinned += [weakref.ref(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if self.counting and (given or stays):
            self._count(func, args, kwargs, given, tree_leaves(result), stays)
        self._note_peak()
        return result

    def _taken_apart(self, func, args, kwargs):
        """What is made of other calls comes in one piece under inference mode; NotImplemented for what is not."""
        super().__enter__()
        try:
            return func.decompose(*args, **kwargs)
        finally:
            super().__exit__(None, None, None)

    def _made(self, value):
        return self.put(value) if isinstance(value, Tensor) else value

    def _count(self, func, args, kwargs, given, results, stays) -> None:
        name = func.overloadpacket.__name__
        source = args[1] if name == "copy_" else args[0] if name == "_to_copy" else None
        at_once = kwargs.get("non_blocking") or any(each is True for each in args[2:3])
        if isinstance(source, Tensor) and not isinstance(source, OnDevice):
            waits_for_it = not (at_once and self.is_pinned(source))
            self.counts.staged += bool(at_once and waits_for_it)
            self._count_upload(results[0], waits=waits_for_it)
        elif name == "copy_" and not isinstance(args[0], OnDevice) and at_once and self.is_pinned(args[0]):
            self.counts.downloads += 1
            self.counts.moved += self.latents(source)
        elif not stays or (name == "copy_" and not isinstance(args[0], OnDevice)) or waits(name, args):
            self.counts.syncs += 1
        elif not makes_no_pass(func):
            self._count_kernel(name, written(func, args, kwargs), given, results)

    def _count_upload(self, made: Tensor, waits: bool) -> None:
        size = self.latents(made)
        if not size:
            self.counts.uploads += 1
            self.counts.blocking += waits
            return
        self.counts.draws += 1
        self.counts.waited += waits
        self.counts.kernels += 1
        self.counts.kernels_all += 1
        self.counts.moved += size
        self.counts.names.append("upload")

    def _count_kernel(self, name: str, targets: list, given: list, results: list) -> None:
        ids = {id(tensor) for tensor in targets}
        unread = ids if name in OVERWRITES or name.endswith("_out") else set()
        if name.startswith("new_") or name.endswith("_like"):
            given = ()
        reads = {id(tensor): tensor for tensor in given if id(tensor) not in unread}
        writes = {id(tensor): tensor for tensor in [*targets, *results] if isinstance(tensor, OnDevice)}
        moved = sum(map(self.latents, [*reads.values(), *writes.values()]))
        self.counts.kernels_all += 1
        if moved:
            self.counts.kernels += 1
            self.counts.moved += moved
            self.counts.names.append(name)


def storage(tensor: Tensor) -> torch.UntypedStorage:
    return on_host(tensor).untyped_storage()


def waits(name: str, args: tuple) -> bool:
    """Whether the host must see a value of the device to go on: masks are read to size what they select."""
    masks = args[1] if name in ("index", "index_put_", "index_put") else ()
    return name in WAITS or any(isinstance(mask, OnDevice) and mask.dtype == torch.bool for mask in masks)


def written(func, args: tuple, kwargs: dict) -> list:
    """The arguments that the call writes to."""
    names = [(argument.name, argument.alias_info) for argument in func._schema.arguments]
    given = {**dict(zip((name for name, _ in names), args, strict=False)), **kwargs}
    return [given[name] for name, alias in names if alias is not None and alias.is_write and name in given]


class HostMemory(TorchDispatchMode):
    """Inside `with HostMemory(numel) as counted:` the memory and the random numbers made on the CPU, in latents of
    `numel` float32 numbers: `peak` is the most alive at once, `drawn` all that were drawn."""

    def __init__(self, numel: int):
        super().__init__()
        self.numel, self.peak, self.drawn = numel, 0.0, 0.0
        self.alive: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if func.overloadpacket.__name__ in ("normal_", "randn", "normal"):
            self.drawn += sum(tensor.numel() for tensor in made) / self.numel
        self.alive = [ref for ref in self.alive if ref() is not None] + [weakref.ref(tensor) for tensor in made]
        held = {
            s.data_ptr(): s.nbytes() for ref in self.alive if (t := ref()) is not None for s in [t.untyped_storage()]
        }
        self.peak = max(self.peak, sum(held.values()) / (4 * self.numel))
        return result
