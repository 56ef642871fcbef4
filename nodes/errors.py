"""Errors that speak to whoever wires the graph."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..samplers.parameters import InputError


@contextmanager
def named(node: str) -> Iterator[None]:
    """Puts the node's name before what is wrong with one of its inputs."""
    try:
        yield
    except InputError as error:
        raise ValueError(f"{node}: {error}") from None
