"""The solver that is no entry of the menu: its rows come from a fit, or from a recipe file."""

from ..solvers.fitted import fitted
from .entries import Setting, Solver
from .papers import LD3_PAPER, S4S_PAPER

FITTED = Solver(
    "FittedPlan",
    "Fitted Plan",
    fitted,
    "A plan whose levels and rows were fitted to one model and one guidance.",
    "Use it with the model, the guidance and the levels that it was fitted to.",
    (LD3_PAPER, S4S_PAPER),
    (Setting({}, keeps_marginals=False),),
)
