"""Guidance: how the predictions of a model call become one.

    uncond' + scale (cond - uncond')

is all of it. `scale` = 1 is the conditional prediction, everywhere and exactly. A guider holds a scale and a chain of
rules, each of one kind:

    scale    replaces the scale at this noise level            (interval, curve)
    away     replaces what guidance moves away from, uncond'   (APG, CFG-Zero*, Perp-Neg)
    combine  combines more than two prompts, at most one       (two scales)
    prompt   adds a further prompt with a scale of its own     (another prompt)
    result   repairs the combination                           (rescale, thresholding)

They act in this order, and rules of one kind in the order of the chain. Where the scale is 1, what guidance moves away
from does not count, and where the conditional prediction is the result, there is nothing to repair.

Every rule works on each image by itself, bit for bit the same alone and in a batch, and on any rank. Letters: x the
state, cond, uncond and all other predictions are denoised (estimates of x0), sigma and alpha the noise and signal
levels.
"""

from .chain import Chain, Kind, Rule, avoided_names, cfg, extra_names, guide, needs, resting, scale_at
from .model_call import Call, Descent
from .prompts import another, another_avoids, another_reads, dual, dual_reads
from .repairs import rescale, threshold
from .scales import curve, drawn_curve, interval
from .unconditional import apg, perp_neg, perp_neg_avoids, perp_neg_reads, zero_init_rests, zero_star

__all__ = [
    "Call",
    "Chain",
    "Descent",
    "Kind",
    "Rule",
    "another",
    "another_avoids",
    "another_reads",
    "apg",
    "avoided_names",
    "cfg",
    "curve",
    "drawn_curve",
    "dual",
    "dual_reads",
    "extra_names",
    "guide",
    "interval",
    "needs",
    "perp_neg",
    "perp_neg_avoids",
    "perp_neg_reads",
    "rescale",
    "resting",
    "scale_at",
    "threshold",
    "zero_init_rests",
    "zero_star",
]
