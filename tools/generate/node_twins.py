"""Which node of ours stands for a node of ComfyUI's, beside those that sample: the source of convert/table.json.

Every row is run against its namesake in tests/nodes/test_conversion.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class NodeTwin:
    """A node of ComfyUI's, and the one of ours with the same outputs.

    inputs: its inputs by name, and what they are called here.
    params: what is set on our node.
    only: inputs that have to be typed, with the one value that the row holds for.
    least: inputs that have to be typed, with the least value that the row holds for.
    below: an input that has to be typed and below the typed `steps` of the node wired into another one.
    """

    kind: str
    ours: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, object] = field(default_factory=dict)
    only: Mapping[str, object] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    below: tuple[str, str] | None = None


def same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


RANGE = same("steps", "sigma_max", "sigma_min")
WHOLE = {"denoise": 1.0}

NODES: tuple[NodeTwin, ...] = (
    NodeTwin(
        "BasicScheduler",
        "StepwiseNamedSchedule",
        same("model", "scheduler", "steps", "denoise"),
        {"for_sampler": "none"},
    ),
    NodeTwin("KarrasScheduler", "StepwiseKarrasSchedule", {**RANGE, **same("rho")}),
    NodeTwin("ExponentialScheduler", "StepwiseExponentialSchedule", RANGE),
    NodeTwin("PolyexponentialScheduler", "StepwisePolyexponentialSchedule", {**RANGE, **same("rho")}),
    NodeTwin("VPScheduler", "StepwiseVPSchedule", same("steps", "beta_d", "beta_min", "eps_s")),
    NodeTwin("BetaSamplingScheduler", "StepwiseBetaSchedule", same("model", "steps", "alpha", "beta")),
    NodeTwin("AlignYourStepsScheduler", "StepwiseAlignYourStepsSchedule", same("model_type", "steps"), only=WHOLE),
    NodeTwin("OptimalStepsScheduler", "StepwiseOptimalStepsSchedule", same("model_type", "steps"), only=WHOLE),
    NodeTwin("Flux2Scheduler", "StepwiseFlux2Schedule", same("steps", "width", "height")),
    NodeTwin(
        "LTXVScheduler",
        "StepwiseLTXVSchedule",
        same("steps", "max_shift", "base_shift", "stretch", "terminal", "latent"),
        least={"steps": 2},
    ),
    NodeTwin("ManualSigmas", "StepwiseParseSigmas", {"sigmas": "text"}),
    NodeTwin("SetFirstSigma", "StepwiseSetFirstSigma", same("sigmas", "sigma")),
    NodeTwin(
        "SplitSigmas",
        "StepwiseSplitSigmas",
        same("sigmas", "step"),
        {"at": "step"},
        least={"step": 1},
        below=("step", "sigmas"),
    ),
    NodeTwin("FlipSigmas", "StepwiseReverseSigmas", same("sigmas"), {"lowest": 0.0001}),
    NodeTwin("DisableNoise", "StepwiseNoise", {}, {"start": "none", "seed": 0}),
    NodeTwin("CFGGuider", "StepwiseCFGGuider", same("model", "positive", "negative", "cfg")),
)


@dataclass(frozen=True)
class SamplerTwin:
    """A node of ComfyUI's that makes a SAMPLER, the name of that sampler, and its inputs as our solver calls them.

    only: inputs that have to be typed, with the one value that the row holds for.
    model: it takes a MODEL, which has to be that of the run.
    """

    kind: str
    name: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, object] = field(default_factory=dict)
    model: bool = False


NOISY = same("eta", "s_noise")

SAMPLERS: tuple[SamplerTwin, ...] = (
    SamplerTwin("SamplerEulerAncestral", "euler_ancestral", NOISY),
    SamplerTwin("SamplerLMS", "lms", same("order")),
    SamplerTwin("SamplerDPMPP_2S_Ancestral", "dpmpp_2s_ancestral", NOISY),
    SamplerTwin("SamplerDPMPP_SDE", "dpmpp_sde", {**NOISY, **same("r", "noise_device")}),
    SamplerTwin("SamplerDPMPP_2M_SDE", "dpmpp_2m_sde", {**NOISY, **same("solver_type", "noise_device")}),
    SamplerTwin("SamplerDPMPP_3M_SDE", "dpmpp_3m_sde", {**NOISY, **same("noise_device")}),
    SamplerTwin("SamplerSEEDS2", "seeds_2", {**NOISY, **same("solver_type"), "r": "c2"}),
    SamplerTwin("SamplerER_SDE", "er_sde", same("s_noise"), {"solver_type": "ER-SDE", "max_stage": 3}),
    SamplerTwin(
        "SamplerSASolver",
        "sa_solver",
        {"eta": "tau", "use_pece": "pece", **same("s_noise", "predictor_order", "corrector_order")},
        {"sde_start_percent": 0.2, "sde_end_percent": 0.8, "simple_order_2": False},
        model=True,
    ),
)

# Nodes of ComfyUI's that stay as they are, since they act under our guiders, and the rule of ours for the like.
ADVICE: Mapping[str, str] = {
    "RescaleCFG": "Rescale",
    "APG": "APG",
    "CFGZeroStar": "CFGZeroStar",
    "PerpNegGuider": "PerpNeg",
    "DualCFGGuider": "Dual",
}

# Samplers that are ComfyUI's on schedules of two steps or more that end at 0, and those that draw noise of their own
# where the latent has a mask.
TO_ZERO = ("uni_pc", "uni_pc_bh2")
MASKED_NOISE = ("ddim",)
# Samplers on schedulers where rounding in float32 is amplified so much that two sums of the same terms differ by 1e-4.
AMPLIFIED = (("lms", "linear_quadratic"),)
