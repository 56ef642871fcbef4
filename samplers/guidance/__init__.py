"""Guidance: how the predictions of a model call become one.

    uncond' + scale (cond - uncond')

is all of it. `scale` = 1 is the conditional prediction, everywhere and exactly. A guider holds a scale and a chain of
rules, each of one kind:

    scale    replaces the scale at this noise level            (interval, curve)
    away     replaces what guidance moves away from, uncond'   (APG, CFG-Zero*, Perp-Neg)
    combine  combines more than two prompts, at most one       (two scales)
    prompt   adds a further prompt with a scale of its own     (another prompt)
    result   repairs the combination                           (rescale, thresholding)
    history  moves the result away from its own past           (momentum)

They act in this order, and rules of one kind in the order of the chain. Where the scale is 1, what guidance moves away
from does not count, and where the conditional prediction is the result, there is nothing to repair. Its past counts
everywhere.

Every rule works on each image by itself, bit for bit the same alone and in a batch, and on any rank. Letters: x the
state, cond, uncond and all other predictions are denoised (estimates of x0), sigma and alpha the noise and signal
levels.
"""

from .chain import Chain, Kind, Rule, avoided_names, cfg, extra_names, guide, informed, needs, resting, scale_at
from .frequencies import decoupled
from .history import momentum, sliding
from .model_call import Call, Descent
from .prompts import another, another_avoids, another_reads, dual, dual_reads
from .repairs import channel_norm, rescale, threshold
from .scales import by_component, by_steps, curve, drawn_curve, interval
from .unconditional import (
    apg,
    magnitude_aware,
    perp_neg,
    perp_neg_avoids,
    perp_neg_reads,
    tangential,
    zero_init_rests,
    zero_star,
)

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
    "by_component",
    "by_steps",
    "cfg",
    "channel_norm",
    "curve",
    "decoupled",
    "drawn_curve",
    "dual",
    "dual_reads",
    "extra_names",
    "guide",
    "informed",
    "interval",
    "magnitude_aware",
    "momentum",
    "needs",
    "perp_neg",
    "perp_neg_avoids",
    "perp_neg_reads",
    "rescale",
    "resting",
    "scale_at",
    "sliding",
    "tangential",
    "threshold",
    "zero_init_rests",
    "zero_star",
]
