"""Tensors between the CPU and a device, without waiting where that is possible."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...samplers import State


class Arriving:
    """Copies of `tensors` on their way to the CPU.

    From a GPU of CUDA (or ROCm) they go into pinned memory while the device and the host work on, and an event says
    when they are there. From other devices nobody can tell without waiting: those are copied when they are asked for.
    What lies on the CPU is there, and is no copy.
    """

    def __init__(self, tensors: Sequence[Tensor]):
        self.tensors, self.event = list(tensors), None
        devices = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
        if len(devices) == 1:
            (device,) = devices
            self.tensors = [pinned_copy(tensor) if tensor.device == device else tensor for tensor in tensors]
            self.event = torch.cuda.Event()
            self.event.record(torch.cuda.current_stream(device))

    def there(self) -> bool:
        """Whether `taken` returns at once."""
        if self.event is not None:
            return self.event.query()
        return all(tensor.device.type == "cpu" for tensor in self.tensors)

    def taken(self) -> list[Tensor]:
        """The tensors on the CPU, waited for if they are not there yet."""
        if self.event is not None and not self.event.query():
            self.event.synchronize()
        return [tensor.cpu() for tensor in self.tensors]


def pinned_copy(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; from the CPU to a GPU the host does not wait for the copy."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = torch.empty_like(tensor, pin_memory=True).copy_(tensor)
        return tensor.to(device, non_blocking=True)
    return tensor.to(device)


def sent_all(value: Any, device: torch.device) -> Any:
    """An input of the model, with its tensors on a device."""
    if isinstance(value, Tensor):
        return sent(value, device)
    return [sent_all(item, device) for item in value] if isinstance(value, list) else value


def placed_like(values: Sequence[float], like: Tensor) -> Tensor:
    """Numbers as a tensor of `like`'s type where it lies; the host does not wait for the copy."""
    pinned = like.device.type == "cuda"
    return torch.tensor(values, dtype=like.dtype, pin_memory=pinned).to(like.device, non_blocking=pinned)


def state_on(state: State, device: torch.device) -> State:
    """The same state on another device: bit for bit, since moving does not round. What is shared stays shared."""
    return rebuilt(state, {id(tensor): sent(tensor, device) for tensor in tensors_of(state)})


def tensors_of(state: State) -> list[Tensor]:
    return [tensor for tensor in (*state.registers.values(), state.denoised) if tensor is not None]


def rebuilt(state: State, moved: Mapping[int, Tensor]) -> State:
    """The state with other tensors, which `moved` has by the ids of its own."""
    registers = {name: moved[id(value)] for name, value in state.registers.items()}
    denoised = None if state.denoised is None else moved[id(state.denoised)]
    return replace(state, registers=registers, denoised=denoised)


class Leaving:
    """A state, and what guidance remembers there, on their way to the CPU."""

    def __init__(self, state: State, memory: Mapping[str, Tensor]):
        self.state, self.memory = state, dict(memory)
        self.own = list({id(tensor): tensor for tensor in (*tensors_of(state), *memory.values())}.values())
        self.copies = Arriving(self.own)

    def taken(self) -> tuple[State, dict[str, Tensor]]:
        """Both on the CPU, waited for if they are not there yet. Pinned memory is not for keeping."""
        copies = self.copies.taken()
        if self.copies.event is not None:
            copies = [copy.clone() for copy in copies]
        moved = {id(tensor): copy for tensor, copy in zip(self.own, copies, strict=True)}
        return rebuilt(self.state, moved), {name: moved[id(value)] for name, value in self.memory.items()}
