"""Which solver of Stepwise is the sampler of another program, and which samplers are none of ours.

Here are those of ComfyUI; those of diffusers are in diffusers_twins.py. Every `Twin` is run against its namesake by the
tests: of diffusers in tests/samplers/test_references_more.py, of ComfyUI in tests/nodes/test_names.py. A twin that
names a `test` is compared there instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

BOTH, VE, FLOW = ("VE", "FLOW"), ("VE",), ("FLOW",)


@dataclass(frozen=True)
class Twin:
    """A sampler of another program with its configuration, and the solver of ours that takes the same steps.

    options: what is set differently from its default there.
    params: what is set on our node; the rest at its default.
    test: `file::function` of the test that compares them, where it is not the test of all twins.
    steps: numbers of steps at which they are compared, where the configuration depends on them.
    bound: on the relative difference, where it is larger than for the others, and the note says why.
    alone: it is the same for one image at a time, and a workflow does not say how many there are.
    """

    name: str
    options: Mapping[str, object]
    ours: str
    params: Mapping[str, object] = field(default_factory=dict)
    paths: tuple[str, ...] = BOTH
    note: str = ""
    test: str = ""
    steps: tuple[int, ...] = (1, 2, 10, 20)
    bound: float = 0.0
    alone: bool = False


@dataclass(frozen=True)
class Single:
    """Samplers of another program that no solver of ours equals, and why."""

    names: tuple[str, ...]
    why: str


FULL = {"final_order": "full"}
COLD = {"warm_up": "multistep"}
PUBLISHED = {"weights": "published", **COLD}
HOST = "tests/nodes/test_parity_solvers.py::"

# ComfyUI moves the first level of a flow model away from 1 for the samplers that need a finite log-SNR.
MOVED = {"first_level": "core"}
IN_LOG_SIGMA = {"time": "log_sigma"}
PUBLISHED_SDE = {"weights": "published", **FULL, **MOVED}
SEEDS_3 = {"order": "3", "c2": 1.0 / 3.0, "c3": 2.0 / 3.0, "eta": 1.0}
SA_NOTE = "In 12 steps; in a thousand ComfyUI's weights, solved for in float32, have no digit left."
UNIPC_NOTE = (
    "On schedules to 0 of two steps or more; to {bound:g} in 12 steps: ComfyUI computes its step lengths in float32; "
    "in float64 the difference is below 1e-12."
)

ADAPTIVE_NOTE = (
    "One image at a time, with the same steps accepted and rejected, to 1e-3: ComfyUI counts levels and errors in "
    "float32. A batch takes its steps there by the error of all images together."
)
COMFYUI: tuple[Twin, ...] = (
    Twin("euler", {}, "Euler"),
    Twin("ddim", {}, "DDIM", test="tests/nodes/test_parity.py::test_same_seed_same_picture_as_core"),
    Twin("euler_ancestral", {}, "EulerAncestral"),
    Twin("ddpm", {}, "DDPM", {}, VE),
    Twin("heun", {}, "Heun"),
    Twin("dpm_2", {}, "DPMSolver", {}, VE),
    Twin("dpm_2", {}, "DPMSolver", IN_LOG_SIGMA, FLOW),
    Twin("dpm_2_ancestral", {}, "DPM2Ancestral", {}, VE),
    Twin("dpm_2_ancestral", {}, "DPM2Ancestral", IN_LOG_SIGMA, FLOW),
    Twin("dpm_fast", {}, "DPMFast", {"levels": "core"}),
    Twin(
        "dpm_adaptive",
        {},
        "DPMAdaptive",
        {"levels": "core"},
        note=ADAPTIVE_NOTE,
        test="tests/nodes/test_adaptive.py::test_it_is_the_hosts_for_one_image",
        alone=True,
    ),
    Twin("dpmpp_2s_ancestral", {}, "DPMpp2S", {"eta": 1.0}, VE),
    Twin(
        "dpmpp_2s_ancestral",
        {},
        "DPMpp2S",
        {"eta": 1.0},
        FLOW,
        "To 1e-4: ComfyUI has the inner point of a first step from 1 at 0.9999.",
        bound=1e-4,
    ),
    *(
        Twin(
            name,
            {},
            "DPMppSDE",
            MOVED,
            note="Given our composition of the noise over the two parts of a step.",
            test=HOST + "test_dpmpp_sde_equals_the_hosts_when_its_two_draws_are_composed_as_ours",
        )
        for name in ("dpmpp_sde", "dpmpp_sde_gpu")
    ),
    Twin("dpmpp_2m", {}, "DPMpp2M", {}, VE),
    Twin("dpmpp_2m", {}, "DPMpp2M", IN_LOG_SIGMA, FLOW),
    *(Twin(f"dpmpp_2m_sde{gpu}", {}, "DPMpp2MSDE", {**FULL, **MOVED}) for gpu in ("", "_gpu")),
    *(
        Twin(f"dpmpp_2m_sde_heun{gpu}", {}, "DPMpp2MSDE", {"solver_type": "heun", **FULL, **MOVED})
        for gpu in ("", "_gpu")
    ),
    *(Twin(f"dpmpp_3m_sde{gpu}", {}, "DPMpp3MSDE", PUBLISHED_SDE) for gpu in ("", "_gpu")),
    Twin("dpmpp_3m_sde", {"eta": 0.0}, "DPMpp3MSDE", {"eta": 0.0, **PUBLISHED_SDE}),
    Twin("dpmpp_3m_sde", {"eta": 0.0}, "DPMpp3M", {**PUBLISHED, **FULL}, VE),
    Twin("lms", {}, "LMS", {**COLD, **FULL}),
    Twin("ipndm", {}, "IPNDM"),
    Twin(
        "deis",
        {},
        "DEIS",
        {**COLD, **FULL, "noise_rate": "core"},
        BOTH,
        "To 5e-5: ComfyUI sums its integrals over 10000 points, in float32.",
        bound=5e-5,
    ),
    *(
        Twin(
            name,
            {},
            "UniPC",
            {"variant": variant, **COLD, **time, "end": "core"},
            paths,
            UNIPC_NOTE.format(bound=bound),
            bound=bound,
        )
        for name, variant, time, paths, bound in (
            ("uni_pc", "bh1", {}, VE, 1e-4),
            ("uni_pc", "bh1", IN_LOG_SIGMA, FLOW, 3e-4),
            ("uni_pc_bh2", "bh2", {}, VE, 2e-4),
            ("uni_pc_bh2", "bh2", IN_LOG_SIGMA, FLOW, 1e-4),
        )
    ),
    Twin("res_multistep", {}, "RESMultistep", {}, VE),
    Twin("res_multistep", {}, "RESMultistep", IN_LOG_SIGMA, FLOW),
    Twin("exp_heun_2_x0", {}, "RESSinglestep", {"c2": 1.0, **MOVED}),
    Twin("exp_heun_2_x0_sde", {}, "RESSinglestep", {"c2": 1.0, "eta": 1.0, **MOVED}),
    Twin("seeds_2", {}, "RESSinglestep", {"eta": 1.0, "solver_type": "phi_1", **MOVED}),
    Twin("seeds_3", {}, "RESSinglestep", {**SEEDS_3, **MOVED}),
    Twin(
        "er_sde",
        {},
        "ERSDE",
        {"weights": "published", **COLD, **FULL, **MOVED},
        note="To 1e-3: ComfyUI sums its integrals over 200 points.",
        bound=1e-3,
    ),
    Twin("sa_solver", {}, "SASolver", {"interval": "core", **MOVED}, note=SA_NOTE),
    Twin("sa_solver_pece", {}, "SASolver", {"interval": "core", "pece": True, **MOVED}, note=SA_NOTE),
    Twin("gradient_estimation", {}, "GradientEstimation"),
    Twin("lcm", {}, "LCM"),
    Twin("euler_cfg_pp", {}, "Euler", {"cfg_pp": True}),
    Twin("euler_ancestral_cfg_pp", {}, "DDIM", {"eta": 1.0, "cfg_pp": True}),
    Twin("euler_ancestral_cfg_pp", {}, "EulerAncestral", {"cfg_pp": True}, VE),
)

NOT_COMFYUI: tuple[Single, ...] = (
    Single(("heunpp2",), "Wrong there: order 1 at three model calls a step."),
    Single(("ipndm_v",), "Wrong there: of order 1 to 1.6, where 4 is meant. The method as it is meant is LMS."),
    Single(
        ("res_multistep_ancestral",),
        "Wrong there: on flow models it adds noise as on others, so that a constant 2 comes out of the step from 0.8 "
        "to 0.6 as 1.10 where 0.80 is right; and it measures the last change of the prediction over the step that "
        "noise was added to. Take RES Multistep with `eta` 1.",
    ),
    Single(
        ("res_multistep_cfg_pp", "res_multistep_ancestral_cfg_pp"),
        "Wrong there: where both predictions stay what they are, it misses the guided image by their difference times "
        "1 - e^-h in every step. Take RES Multistep with `cfg_pp`.",
    ),
    Single(
        ("gradient_estimation_cfg_pp",),
        "Wrong there: it takes guidance for a change of the slope, and so misses the guided image even where nothing "
        "changes. Take Gradient Estimation with `cfg_pp`.",
    ),
    Single(
        ("dpmpp_2m_cfg_pp",),
        "Wrong there: it takes guidance for a change from step to step, and so misses the guided image even where "
        "nothing changes. Take DPM++ 2M with `cfg_pp`.",
    ),
    Single(
        ("dpmpp_2s_ancestral_cfg_pp",),
        "It takes the guided prediction from a step's first call and the unconditional one from its second; DPM++ 2S "
        "with `cfg_pp` takes both from the first.",
    ),
)

# Name there, name here, settings here, and what there is to say.
RES4LYF: tuple[tuple[str, str, Mapping[str, object], str], ...] = (
    ("res_2m", "RES Multistep", {}, "On flow models with `time` log_sigma."),
    (
        "res_3m",
        "RES Multistep",
        {"order": 3},
        "DPM++ 3M under another name, of order 3; RES4LYF's own was not run here.",
    ),
    ("res_2s", "RES Singlestep", {}, ""),
    (
        "res_3s",
        "RES Singlestep",
        {"order": 3},
        "At `c3` 1 a cube is a square. Wrong there at others: order 2 at `c2` 1/3 and `c3` 2/3, where 3 is right.",
    ),
    ("beta57", "Schedule by Name", {"scheduler": "beta57"}, "Beta Schedule with `alpha` 0.5 and `beta` 0.7."),
    ("bong_tangent", "Schedule by Name", {"scheduler": "bong_tangent"}, ""),
)

# The functions of k-diffusion that ComfyUI carries under the same name, where they take the same steps.
K_DIFFUSION = (
    "euler",
    "euler_ancestral",
    "heun",
    "dpm_2",
    "dpmpp_2s_ancestral",
    "dpmpp_sde",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m_sde",
    "lms",
)


@dataclass(frozen=True)
class Levels:
    """A scheduler of ComfyUI, and the schedule of ours that gives the same noise levels with the model wired.

    models: of which of the host's families. params: what is set on our node.
    """

    name: str
    ours: str
    params: Mapping[str, object] = field(default_factory=dict)
    models: tuple[str, ...] = ("EPS", "V_PREDICTION", "EDM", "FLOW", "FLUX", "FLOW_COSMOS")
    note: str = ""


DISCRETE, EDM, FLOWS = ("EPS", "V_PREDICTION"), ("EDM",), ("FLOW", "FLUX")
LINSPACE = {"spacing": "linspace", "interpolation": "log_linear"}
TO_SIGMA_MIN = {"t_min_from": "sigma_min"}
DROP = {"last_sigma": "drop_penultimate"}

SCHEDULERS: tuple[Levels, ...] = (
    Levels("karras", "Karras"),
    Levels("exponential", "Exponential"),
    Levels("simple", "Timestep", {"spacing": "simple"}),
    Levels("beta", "Beta"),
    Levels("normal", "Timestep", LINSPACE, DISCRETE + EDM),
    Levels("normal", "Flow", TO_SIGMA_MIN, FLOWS),
    Levels("sgm_uniform", "Timestep", {**LINSPACE, **DROP}, DISCRETE + EDM),
    Levels("sgm_uniform", "Flow", {**TO_SIGMA_MIN, **DROP}, FLOWS),
    Levels("ddim_uniform", "Timestep", {"steps_offset": 1}, DISCRETE, "There 31 steps for 30, and 999 for 600."),
    Levels("linear_quadratic", "LinearQuadratic"),
    Levels("kl_optimal", "KLOptimal", note="There NaN at one step."),
)
