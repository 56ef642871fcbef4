"""The one list of what there is. Nodes, help pages, translations, tables and tests are made from it."""

from .entries import Guidance, Operation, Schedule, Setting, Solver
from .fitted import FITTED
from .guidance import GUIDANCE, OPERATIONS
from .schedules import SCHEDULES
from .solvers import SOLVERS

__all__ = [
    "FITTED",
    "GUIDANCE",
    "OPERATIONS",
    "SCHEDULES",
    "SOLVERS",
    "Guidance",
    "Operation",
    "Schedule",
    "Setting",
    "Solver",
]
