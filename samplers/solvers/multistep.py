"""Moved to exponential_multistep, linear_multistep and unipc."""

from ..renamed import renamed
from . import exponential_multistep, linear_multistep, sde
from . import history as of_history
from . import unipc as of_unipc

__getattr__ = renamed(
    __name__,
    exponential_multistep,
    linear_multistep,
    of_unipc,
    of_history,
    sde,
    sde_parts="sde_step",
    remembered="known_history",
)
