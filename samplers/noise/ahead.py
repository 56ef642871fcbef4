"""Noise that is drawn on the CPU while the model runs elsewhere."""

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice

import torch
from torch import Tensor

from ..plan import Noise, NoiseSource, Plan, State
from .addressed import AddressedNoise, Varied
from .brownian import BrownianNoise

Source = AddressedNoise | BrownianNoise


@contextmanager
def drawn_ahead(noise: NoiseSource, plan: Plan, state: State, stop: int) -> Generator[NoiseSource]:
    """`noise` for a run of `plan` from `state` until `stop` model calls are done, each draw begun one before its time.

    It is the same noise, bit for bit, since a draw is a function of its address. Only a source of ours that draws on
    the CPU for a model elsewhere gains by it; any other is given back as it is. Nothing is drawn beyond `stop`. The
    draws are made on a thread, which is gone when the context is left, however it is left; what a draw raises is raised
    where it is asked for. At most one draw lies ready, a latent of pinned memory (two where seeds are varied).
    """
    with ExitStack() as stack:
        yield ahead(noise, plan, state, stop, stack)


def ahead(noise: NoiseSource, plan: Plan, state: State, stop: int, stack: ExitStack) -> NoiseSource:
    if isinstance(noise, Varied):
        first, second = (ahead(each, plan, state, stop, stack) for each in (noise.first, noise.second))
        return Varied(first, second, noise.strength)
    if not isinstance(noise, Source) or noise.device.type != "cpu" or state.x.device.type == "cpu":
        return noise
    if next(draws_of(plan, state.index, stop), None) is None:
        return noise
    return stack.enter_context(Ahead(noise, draws_of(plan, state.index, stop), state.x))


def draws_of(plan: Plan, start: int, stop: int) -> Iterator[Noise]:
    """The addresses of all draws of the model calls from `start` to before `stop`, in their order."""
    for stage in islice(plan.stages, start, stop):
        for each in (*stage.opening, *stage.rows):
            yield from each.draws


class Ahead:
    """See `drawn_ahead`. A draw that is asked for out of turn is made at once."""

    def __init__(self, source: Source, addresses: Iterator[Noise], like: Tensor):
        self.source, self.apart, self.addresses = source, source.apart(), addresses
        self.thread = ThreadPoolExecutor(1, "stepwise-noise")
        self.next: tuple[Noise, Future[Tensor]] | None = None
        self.begin(like)

    @property
    def scale(self) -> float:
        return self.source.scale

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *error: object) -> None:
        self.thread.shutdown(cancel_futures=True)

    def __call__(self, address: Noise, like: Tensor) -> Tensor:
        if self.next is None or self.next[0] != address:
            return self.source(address, like)
        drawn = self.next[1].result()
        self.begin(like)
        return self.source.delivered(drawn, like)

    def begin(self, like: Tensor) -> None:
        """Lets the thread draw for the next address. The memory is taken here: pinned memory is the device's."""
        address = next(self.addresses, None)
        self.next = None if address is None else (address, self.thread.submit(self.draw, address, self.buffer(like)))

    def buffer(self, like: Tensor) -> Tensor:
        return self.source.buffer(like)

    def draw(self, address: Noise, out: Tensor) -> Tensor:
        # The mode is the thread's own.
        with torch.inference_mode(out.is_inference()):
            return self.apart.draw(address, out)
