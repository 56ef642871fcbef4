"""Plans fitted to a model: fewer calls for the same picture.

    from stepwise.samplers.fitting import FULL, Alone, begin_from, fit

    subject = Alone(VE, denoiser, noise)                 # noise: one start for each image, at the first level
    found = fit(subject, begin_from(VE, karras(10)), Split(64, 32), FULL)
    found.plan                                           # rows of floats, as of any solver

Forward only: no gradient of the model is taken, unless a `Descent` is given.
"""

from .fit import KEEPING, LOOSE, Fitted, fit
from .freedom import Freedom
from .gradient import Descent
from .linear_form import LinearForm, begin_from, form_of
from .meter import FULL, QUICK, Budget
from .subject import Alone, Split, Stopped, Subject

__all__ = [
    "FULL",
    "KEEPING",
    "LOOSE",
    "QUICK",
    "Alone",
    "Budget",
    "Descent",
    "Fitted",
    "Freedom",
    "LinearForm",
    "Split",
    "Stopped",
    "Subject",
    "begin_from",
    "fit",
    "form_of",
]
