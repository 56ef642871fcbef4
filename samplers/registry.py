"""The one list of what there is. Nodes, help pages, translations, tables and tests are made from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from . import algebra, guidance, schedules
from .parameters import Parameter, Value, checked, parameters
from .path import VE
from .plan import Plan
from .solvers import ancestral, multistep, single_step


@dataclass(frozen=True)
class Setting:
    """Parameters of a solver, and what is claimed, and proved by the tests, for them.

    order: global order of convergence on the probability-flow ODE; None where noise is added or nothing is claimed.
    noise: noise is drawn.
    calls, calls_to_zero: model calls of a step, and of the step that ends at sigma 0.
    opening: how many first steps are made otherwise, and with how many calls each; one step more where the schedule
        begins at infinite log-SNR and `log_snr` says that the method needs a finite one.
    extra_calls: model calls beside those of the steps, once the schedule reaches them.
    reaches_below: inner calls may lie below the level that the step ends at, since noise brings x back up.
    converges: the law of the result tends to the data's with more steps; not where a part has a fixed number of them.
    looks_ahead: how a step is made depends on the end or the length of the schedule beyond it.
    keeps_marginals: x has the noise level that the model is told, at every call.
    paths: names of the paths on which the setting exists.
    in_cost_table: the tables of what a step costs have a row for it; the default of a solver always has one.
    """

    params: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    order: int | None = None
    noise: bool = False
    calls: int = 1
    calls_to_zero: int = 1
    opening: tuple[int, int] = (0, 1)
    log_snr: bool = False
    extra_calls: int = 0
    reaches_below: bool = False
    converges: bool = True
    looks_ahead: bool = False
    keeps_marginals: bool = True
    paths: tuple[str, ...] = ("VE", "FLOW")
    in_cost_table: bool = False


@dataclass(frozen=True)
class Solver:
    """`id` makes the node ids, `name` is what people read; `settings` carry the claims, the default first."""

    id: str
    name: str
    plan: Callable[..., Plan]
    summary: str
    advice: str
    papers: tuple[str, ...]
    settings: tuple[Setting, ...]
    aliases: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, Parameter]:
        return parameters(self.plan)

    @property
    def stochastic(self) -> bool:
        """Whether it can draw noise."""
        return any(setting.noise for setting in self.settings)


@dataclass(frozen=True)
class Schedule:
    """`takes` names what the function is given of a wired model, attributes of `Trained`; `paths` where it makes sense.

    A function that takes the `table` has no other way to get it; without a model it comes from `trained_sigmas`.
    """

    id: str
    name: str
    function: Callable[..., tuple[float, ...]]
    takes: tuple[str, ...]
    summary: str
    advice: str
    papers: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    paths: tuple[str, ...] = ("VE", "FLOW")


@dataclass(frozen=True)
class Guidance:
    """A rule of guidance, see `guidance`; `kind` is None for the combination itself, which every guider makes.

    others: conditionings beside the guider's own two: input name and meaning.
    curves: parameters that are drawn: input name and meaning.
    reads, rests: as in `guidance.Rule`.
    """

    id: str
    name: str
    function: Callable[..., object]
    summary: str
    advice: str
    papers: tuple[str, ...]
    kind: guidance.Kind | None = None
    others: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    curves: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    reads: Callable[..., tuple[str, ...]] | None = None
    rests: Callable[..., bool] | None = None
    aliases: tuple[str, ...] = ()

    def rule(self, params: Mapping[str, Any]) -> guidance.Rule:
        """The rule with these parameters, conditionings and curves; raises InputError for a parameter out of range."""
        if self.kind is None:
            raise ValueError(f"{self.id} is no rule: it is what a guider does")
        others = {name: params[name] for name in self.others}
        curves = {name: params[name] for name in self.curves}
        numbers = {name: value for name, value in params.items() if name not in {**others, **curves}}
        complete = {**checked(self.function, numbers), **curves}
        if self.kind == "scale":
            # What several parameters must be together, the function itself checks.
            self.function(1.0, 0.5, VE, **complete)
        return guidance.Rule(self.kind, self.function, complete, others, self.reads, self.rests)


@dataclass(frozen=True)
class Operation:
    """An operation on predictions, see `algebra`.

    inputs: predictions that it takes, name and meaning.
    curves: inputs that are drawn.
    rule: what rules that set a scale do to its number; empty if it takes none. For guidance it takes all rules.
    """

    id: str
    name: str
    function: Callable[..., algebra.Prediction]
    inputs: Mapping[str, str]
    summary: str
    advice: str
    papers: tuple[str, ...] = ()
    curves: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rule: str = ""
    aliases: tuple[str, ...] = ()


DDPM_PAPER = "Ho, Jain and Abbeel 2020, Denoising Diffusion Probabilistic Models, arXiv:2006.11239"
DDIM_PAPER = "Song, Meng and Ermon 2021, Denoising Diffusion Implicit Models, arXiv:2010.02502"
KARRAS_PAPER = (
    "Karras, Aittala, Aila and Laine 2022, Elucidating the Design Space of Diffusion-Based Generative Models, "
    "arXiv:2206.00364"
)
DPM_PAPER = (
    "Lu, Zhou, Bao, Chen, Li and Zhu 2022a, DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model "
    "Sampling in Around 10 Steps, arXiv:2206.00927"
)
DPMPP_PAPER = (
    "Lu, Zhou, Bao, Chen, Li and Zhu 2022b, DPM-Solver++: Fast Solver for Guided Sampling of Diffusion "
    "Probabilistic Models, arXiv:2211.01095"
)
LCM_PAPER = (
    "Luo, Tan, Huang, Li and Zhao 2023, Latent Consistency Models: Synthesizing High-Resolution Images with "
    "Few-Step Inference, arXiv:2310.04378"
)
SPACING_PAPER = (
    "Lin, Liu, Li and Yang 2023, Common Diffusion Noise Schedules and Sample Steps are Flawed, arXiv:2305.08891"
)
UNIPC_PAPER = (
    "Zhao, Bai, Rao, Zhou and Lu 2023, UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion "
    "Models, arXiv:2302.04867"
)
DEIS_PAPER = "Zhang and Chen 2023, Fast Sampling of Diffusion Models with Exponential Integrator, arXiv:2204.13902"
RESTART_PAPER = "Xu, Deng, Cheng, Tian, Liu and Jaakkola 2023, Restart Sampling, arXiv:2306.14878"
SCORE_PAPER = (
    "Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole 2021, Score-Based Generative Modeling through Stochastic "
    "Differential Equations, arXiv:2011.13456"
)
BETA_PAPER = "Lee, Lee, Kim, Kim, Park and Yoon 2024, Beta Sampling is All You Need, arXiv:2407.12173"
LAPLACE_PAPER = "Hang, Gu, Geng and Guo 2024, Improved Noise Schedule for Diffusion Training, arXiv:2407.03297"
AYS_PAPER = (
    "Sabour, Fidler and Kreis 2024, Align Your Steps: Optimizing Sampling Schedules in Diffusion Models, "
    "arXiv:2404.14507"
)
SD3_PAPER = (
    "Esser et al. 2024, Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, arXiv:2403.03206"
)
MOVIE_PAPER = "Polyak et al. 2024, Movie Gen: A Cast of Media Foundation Models, arXiv:2410.13720"
FLUX = "Black Forest Labs 2024, FLUX, github.com/black-forest-labs/flux"
KDIFFUSION = "Crowson 2022, k-diffusion, github.com/crowsonkb/k-diffusion"
INTERVAL_PAPER = (
    "Kynkäänniemi, Aittala, Karras, Laine, Aila and Lehtinen 2024, Applying Guidance in a Limited Interval Improves "
    "Sample and Distribution Quality in Diffusion Models, arXiv:2404.07724"
)
APG_PAPER = (
    "Sadat, Hilliges and Weber 2024, Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion "
    "Models, arXiv:2410.02416"
)
ZERO_STAR_PAPER = (
    "Fan, Zheng, Yeh and Liu 2025, CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models, "
    "arXiv:2503.18886"
)
PERP_NEG_PAPER = (
    "Armandpour, Sadeghian, Zheng, Sadeghian and Zhou 2023, Re-imagine the Negative Prompt Algorithm, arXiv:2304.04968"
)
CURVE_PAPER = (
    "Wang, Dufour, Andreou, Cani, Abrevaya, Picard and Kalogeiton 2024, Analysis of Classifier-Free Guidance Weight "
    "Schedulers, arXiv:2404.13040"
)
MUSE_PAPER = (
    "Chang and others 2023, Muse: Text-To-Image Generation via Masked Generative Transformers, arXiv:2301.00704"
)
PIX2PIX_PAPER = (
    "Brooks, Holynski and Efros 2023, InstructPix2Pix: Learning to Follow Image Editing Instructions, arXiv:2211.09800"
)
COMPOSED_PAPER = (
    "Liu, Li, Du, Torralba and Tenenbaum 2022, Compositional Visual Generation with Composable Diffusion Models, "
    "arXiv:2206.01714"
)
IMAGEN_PAPER = (
    "Saharia and others 2022, Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding, "
    "arXiv:2205.11487"
)
CFG_PAPER = "Ho and Salimans 2022, Classifier-Free Diffusion Guidance, arXiv:2207.12598"

SOLVERS: tuple[Solver, ...] = (
    Solver(
        "DDPM",
        "DDPM",
        ancestral.ddpm,
        "Ancestral sampling of denoising diffusion models: a small random step per model call.",
        "Takes hundreds to 1000 steps. With the Timestep schedule at 1000 steps it is the original method.",
        (DDPM_PAPER,),
        (
            Setting({"variance": "small"}, noise=True),
            Setting({"variance": "large"}, noise=True, keeps_marginals=False, paths=("VE",)),
        ),
        ("ancestral", "ddpm"),
    ),
    Solver(
        "DDIM",
        "DDIM",
        ancestral.ddim,
        "Deterministic steps that predict the clean image each time; eta adds DDPM's noise back in.",
        "About 50 steps with the Timestep schedule. eta 0 gives the same picture every time for one starting noise.",
        (DDIM_PAPER,),
        (Setting({"eta": 0.0}, order=1), Setting({"eta": 0.5}, noise=True), Setting({"eta": 1.0}, noise=True)),
        ("ddim",),
    ),
    Solver(
        "Euler",
        "Euler",
        single_step.euler,
        "The simplest step along the probability-flow ODE; s_churn adds noise before each step.",
        "20 to 50 steps. Robust at high guidance with few steps, where higher orders can overshoot.",
        (KARRAS_PAPER,),
        (
            Setting({}, order=1),
            Setting({"s_churn": 10.0}, noise=True, looks_ahead=True),
            Setting({"s_churn": 10.0, "s_noise": 1.007}, noise=True, keeps_marginals=False, looks_ahead=True),
        ),
        ("euler",),
    ),
    Solver(
        "EulerAncestral",
        "Euler Ancestral",
        ancestral.euler_ancestral,
        "Euler steps that go too far down and add noise back up: the picture keeps changing with the number of steps.",
        "20 to 40 steps. On flow models it is ComfyUI's own form.",
        (KARRAS_PAPER, KDIFFUSION),
        (
            Setting({"eta": 1.0}, noise=True),
            Setting({"eta": 0.0}, order=1),
            Setting({"eta": 0.5}, noise=True),
            Setting({"s_noise": 1.1}, noise=True, keeps_marginals=False),
        ),
        ("euler a", "euler_ancestral"),
    ),
    Solver(
        "Heun",
        "Heun",
        single_step.heun,
        "Second order by averaging the slopes at both ends of the step; s_churn adds noise before each step.",
        "10 to 20 steps, two model calls each.",
        (KARRAS_PAPER,),
        (Setting({}, order=2, calls=2), Setting({"s_churn": 10.0}, noise=True, calls=2, looks_ahead=True)),
        ("heun",),
    ),
    Solver(
        "DPMSolver",
        "DPM-Solver",
        single_step.dpm_solver,
        "Exponential integrator in log-SNR without memory: order 2 makes two model calls a step.",
        "10 steps (19 model calls, the last step takes one) where DDIM takes 50.",
        (DPM_PAPER,),
        (
            Setting({"order": "2"}, order=2, calls=2),
            Setting({"order": "1"}, order=1),
            Setting({"order": "3"}, order=3, calls=3, in_cost_table=True),
        ),
        ("dpm_2", "dpm solver", "midpoint"),
    ),
    Solver(
        "DPMpp2S",
        "DPM++ 2S",
        single_step.dpmpp_2s,
        "Second order in one step, from the prediction at its middle; eta makes it ancestral.",
        "10 to 20 steps, two model calls each.",
        (DPMPP_PAPER, KDIFFUSION),
        (
            Setting({"eta": 0.0}, order=2, calls=2),
            Setting({"eta": 1.0}, noise=True, calls=2, reaches_below=True, in_cost_table=True),
            Setting({"eta": 0.5}, noise=True, calls=2, reaches_below=True),
        ),
        ("dpmpp_2s_ancestral", "dpm++ 2s a"),
    ),
    Solver(
        "DPMpp2M",
        "DPM++ 2M",
        multistep.dpmpp_2m,
        "Second order from one model call a step, by remembering the last prediction.",
        "The recommended default: 20 steps with the Karras schedule.",
        (DPMPP_PAPER,),
        (Setting({"time": "half_log_snr"}, order=2), Setting({"time": "log_sigma"}, order=2)),
        ("dpmpp_2m", "dpm++ 2m", "dpm solver++"),
    ),
    Solver(
        "DPMpp3M",
        "DPM++ 3M",
        multistep.dpmpp_3m,
        "Third order from one model call a step, by remembering the last two predictions.",
        "15 to 30 steps at moderate guidance; at high guidance with few steps prefer DPM++ 2M.",
        (DPMPP_PAPER,),
        (
            Setting({}, order=3, opening=(1, 2), log_snr=True, looks_ahead=True),
            Setting({"weights": "published"}, order=2, opening=(1, 2), log_snr=True, looks_ahead=True),
            Setting({"warm_up": "multistep"}, looks_ahead=True),
        ),
        ("dpmpp_3m", "dpm++ 3m"),
    ),
    Solver(
        "DPMppSDE",
        "DPM++ SDE",
        single_step.dpmpp_sde,
        "Stochastic second-order solver of two model calls a step.",
        "8 to 20 steps.",
        (DPMPP_PAPER, KDIFFUSION),
        (
            Setting({"eta": 1.0}, noise=True, calls=2),
            Setting({"eta": 0.0}, order=2, calls=2),
            Setting({"eta": 0.5}, noise=True, calls=2),
        ),
        ("dpmpp_sde", "dpm++ sde"),
    ),
    Solver(
        "DPMpp2MSDE",
        "DPM++ 2M SDE",
        multistep.dpmpp_2m_sde,
        "DPM++ 2M on the reverse SDE: it adds noise at every step, which repairs errors of earlier ones.",
        "20 to 50 steps.",
        (DPMPP_PAPER, KDIFFUSION),
        (
            Setting({"solver_type": "midpoint"}, noise=True, looks_ahead=True),
            Setting({"solver_type": "heun"}, noise=True, looks_ahead=True),
            Setting({"eta": 0.0, "final_order": "full"}, order=2),
            Setting({"eta": 0.0, "solver_type": "heun", "final_order": "full"}, order=2),
        ),
        ("dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpm++ 2m sde"),
    ),
    Solver(
        "DPMpp3MSDE",
        "DPM++ 3M SDE",
        multistep.dpmpp_3m_sde,
        "DPM++ 3M on the reverse SDE.",
        "25 to 50 steps, with the Exponential schedule.",
        (DPMPP_PAPER, KDIFFUSION),
        (
            Setting({}, noise=True, looks_ahead=True),
            Setting({"weights": "published"}, noise=True, looks_ahead=True),
            Setting({"eta": 0.5}, noise=True, looks_ahead=True),
        ),
        ("dpmpp_3m_sde", "dpm++ 3m sde"),
    ),
    Solver(
        "UniPC",
        "UniPC",
        multistep.unipc,
        "Predictor and corrector from one model call a step: each prediction also repairs the state it was made at.",
        "5 to 20 steps at moderate guidance.",
        (UNIPC_PAPER,),
        (
            Setting({"order": 3}, order=4, opening=(2, 3), log_snr=True, looks_ahead=True),
            Setting({"order": 2}, order=3, opening=(1, 2), log_snr=True, in_cost_table=True),
            Setting({"order": 2, "variant": "bh1"}, order=3, opening=(1, 2), log_snr=True),
            Setting({"order": 1}, order=2),
            Setting({"order": 3, "corrector": False}, order=3, opening=(1, 2), log_snr=True, looks_ahead=True),
            Setting({"order": 2, "corrector": False}, order=2),
        ),
        ("uni_pc", "uni_pc_bh2", "unipc"),
    ),
    Solver(
        "DEIS",
        "DEIS",
        multistep.deis,
        "Adams-Bashforth with a polynomial in the diffusion time.",
        "10 to 20 steps.",
        (DEIS_PAPER,),
        (
            Setting({"order": 3}, order=3, opening=(1, 2), looks_ahead=True),
            Setting({"order": 2}, order=2),
            Setting({"order": 1}, order=1),
        ),
        ("deis",),
    ),
    Solver(
        "LMS",
        "LMS",
        multistep.lms,
        "Adams-Bashforth in the noise level: the linear multistep method of k-diffusion.",
        "20 to 50 steps.",
        (KARRAS_PAPER, KDIFFUSION),
        (
            Setting({"order": 4}, order=4, opening=(2, 3), looks_ahead=True),
            Setting({"order": 3}, order=3, opening=(1, 2), looks_ahead=True),
            Setting({"order": 2}, order=2),
            Setting({"order": 1}, order=1),
        ),
        ("lms", "linear multistep"),
    ),
    Solver(
        "Restart",
        "Restart",
        single_step.restart,
        "Heun, with an interval of noise levels run again from fresh noise, which removes accumulated errors.",
        "20 steps and one or two restarts.",
        (RESTART_PAPER, KARRAS_PAPER),
        (
            Setting({}, noise=True, calls=2, extra_calls=8, converges=False, looks_ahead=True),
            Setting(
                {"restarts": 3, "restart_steps": 2},
                noise=True,
                calls=2,
                extra_calls=12,
                converges=False,
                looks_ahead=True,
            ),
            Setting({"restarts": 0}, order=2, calls=2),
        ),
        ("restart",),
    ),
    Solver(
        "LCM",
        "LCM",
        ancestral.lcm,
        "Consistency sampling for distilled models: denoise fully, add noise, repeat.",
        "4 to 8 steps with a model distilled for it, the LCM schedule and guidance 1 to 2.",
        (LCM_PAPER,),
        (
            Setting({}, noise=True),
            Setting({"s_noise": 0.9, "s_noise_end": 0.5}, noise=True, keeps_marginals=False, looks_ahead=True),
        ),
        ("lcm", "turbo", "lightning", "consistency"),
    ),
)

RANGE = ("sigma_min", "sigma_max")

SCHEDULES: tuple[Schedule, ...] = (
    Schedule(
        "Karras",
        "Karras",
        schedules.karras,
        RANGE,
        "Noise levels evenly spaced in sigma^(1/rho).",
        "The usual choice with DPM++ 2M and 10 to 30 steps.",
        (KARRAS_PAPER,),
        ("edm",),
    ),
    Schedule(
        "Exponential",
        "Exponential",
        schedules.exponential,
        RANGE,
        "Noise levels evenly spaced in log sigma.",
        "Fewer steps at high noise than Karras with rho 7.",
        (DPM_PAPER,),
        ("log-linear", "log-snr", "lu"),
    ),
    Schedule(
        "Polyexponential",
        "Polyexponential",
        schedules.polyexponential,
        RANGE,
        "Noise levels evenly spaced in a power of the fraction of log sigma.",
        "rho 1 is Exponential; larger values put more steps at low noise.",
        (KDIFFUSION, DPM_PAPER),
    ),
    Schedule(
        "Timestep",
        "Timestep",
        schedules.timestep,
        ("table",),
        "The noise levels of evenly spaced trained timesteps: the schedule of DDPM and DDIM.",
        "leading with steps_offset 1 is Stable Diffusion's DDIM; 1000 steps is all of DDPM; trailing for few steps.",
        (DDPM_PAPER, DDIM_PAPER, SPACING_PAPER),
        ("ddim_uniform", "normal", "simple", "sgm_uniform", "leading", "trailing", "linspace", "zero terminal snr"),
    ),
    Schedule(
        "Beta",
        "Beta",
        schedules.beta,
        ("table",),
        "Trained timesteps at equal quantiles of a Beta distribution: dense at both ends of the run.",
        "alpha and beta 0.6 are the paper's; values of 1 are even steps.",
        (BETA_PAPER,),
        ("beta57",),
    ),
    Schedule(
        "Laplace",
        "Laplace",
        schedules.laplace,
        (*RANGE, "path"),
        "Noise levels at equal quantiles of a Laplace distribution of log-SNR: dense around one level.",
        "mu 0 gathers the steps where signal and noise are equal.",
        (LAPLACE_PAPER,),
    ),
    Schedule(
        "VP",
        "VP",
        schedules.vp,
        RANGE,
        "Even steps in the time of continuous variance-preserving diffusion.",
        "For models trained with the VP process; close to Timestep on Stable Diffusion.",
        (SCORE_PAPER, KARRAS_PAPER),
        ("variance preserving",),
        ("VE",),
    ),
    Schedule(
        "Flow",
        "Flow",
        schedules.flow,
        ("shift",),
        "Even steps in the time of a flow model, shifted towards high noise.",
        "For SD3, Flux, Wan and other flow models: wire the model for its own shift, or choose resolution for Flux.",
        (SD3_PAPER, FLUX),
        ("shift", "flux", "sd3", "wan", "simple", "flow match", "resolution"),
        ("FLOW",),
    ),
    Schedule(
        "LinearQuadratic",
        "Linear-Quadratic",
        schedules.linear_quadratic,
        ("sigma_max",),
        "Half of the steps small and even at high noise, the others growing quadratically.",
        "For video models such as Mochi, where the first steps set the scene and the motion.",
        (MOVIE_PAPER,),
        ("mochi", "movie gen"),
    ),
    Schedule(
        "KLOptimal",
        "KL-Optimal",
        schedules.kl_optimal,
        RANGE,
        "Noise levels evenly spaced in atan(sigma), optimal in a bound for Gaussian data.",
        "Many steps at low noise, few at high: for 10 to 30 steps on Stable Diffusion.",
        (AYS_PAPER,),
    ),
    Schedule(
        "AlignYourSteps",
        "Align Your Steps",
        schedules.align_your_steps,
        (),
        "Noise levels that were optimised for a model family, published for ten steps.",
        "10 steps with DPM++ 2M or DPM++ 2M SDE; other numbers of steps lie in between.",
        (AYS_PAPER,),
        ("ays",),
        ("VE",),
    ),
    Schedule(
        "LCM",
        "LCM",
        schedules.lcm,
        ("table",),
        "The timesteps that a latent consistency model was distilled on, thinned to a few.",
        "4 to 8 steps, with the LCM solver.",
        (LCM_PAPER,),
        ("lcm",),
    ),
    Schedule(
        "Curve",
        "Curve",
        schedules.curve,
        RANGE,
        "A schedule that you draw: log sigma over the step.",
        "A straight line downwards is Exponential; flat parts are dense steps, steep ones long.",
        (DPM_PAPER,),
        ("draw", "custom", "manual"),
    ),
)

GUIDANCE: tuple[Guidance, ...] = (
    Guidance(
        "CFG",
        "Classifier-free guidance",
        guidance.cfg,
        "Moves the prediction from the unconditional past the conditional one.",
        "7.5 is usual for Stable Diffusion; 1 is the conditional prediction alone, at half the cost.",
        (CFG_PAPER,),
    ),
    Guidance(
        "Interval",
        "Guidance Interval",
        guidance.interval,
        "Guidance acts in an interval of noise levels only; outside it the prompt alone is evaluated.",
        "It saves model evaluations and keeps variety: at high noise guidance narrows it, at low noise it does little.",
        (INTERVAL_PAPER,),
        "scale",
        aliases=("limited interval", "guidance limiter", "cfg start end"),
    ),
    Guidance(
        "Curve",
        "Guidance Curve",
        guidance.curve,
        "The guidance scale rises or falls with the noise level, along a line or a cosine.",
        "From low at high noise to full at low noise keeps variety; it takes a higher scale than constant guidance.",
        (CURVE_PAPER, MUSE_PAPER),
        "scale",
        aliases=("cfg schedule", "cfg curve", "dynamic cfg", "cfg linear"),
    ),
    Guidance(
        "DrawnCurve",
        "Guidance Curve (drawn)",
        guidance.drawn,
        "The guidance scale follows a curve drawn in the node, from high noise at its left to low noise at its right.",
        "Draw 0 where the prompt alone should be evaluated.",
        (CURVE_PAPER,),
        "scale",
        curves={"curve": "Height 1 is the guider's own scale, height 0 is `low`. Left is high noise."},
        aliases=("cfg schedule", "cfg curve", "dynamic cfg"),
    ),
    Guidance(
        "APG",
        "Adaptive Projected Guidance",
        guidance.apg,
        "Leaves out of guidance what only strengthens the picture's contrast, and limits its length.",
        "For high scales, 10 to 20, without burnt colours.",
        (APG_PAPER,),
        "away",
        aliases=("apg", "adaptive projected guidance"),
    ),
    Guidance(
        "CFGZeroStar",
        "CFG-Zero*",
        guidance.zero_star,
        "Guidance for flow models: the unconditional velocity is fitted to the conditional one; the first step rests.",
        "SD3, Flux, Wan and other flow models, at their usual scale.",
        (ZERO_STAR_PAPER,),
        "away",
        rests=guidance.zero_init_rests,
        aliases=("cfg zero star", "zero init"),
    ),
    Guidance(
        "PerpNeg",
        "Perp-Neg",
        guidance.perp_neg,
        "Of the negative prompt only what is perpendicular to the positive one pushes the picture away.",
        "When positive and negative prompt have much in common. It evaluates three prompts.",
        (PERP_NEG_PAPER,),
        "away",
        {"empty": "An empty prompt. The guider's own negative is the prompt to avoid."},
        aliases=("perp neg", "perpendicular negative"),
    ),
    Guidance(
        "Dual",
        "Dual Guidance",
        guidance.dual,
        "Three prompts and two scales: from the negative to a middle prompt, and from there to the positive one.",
        "Instructed editing, or a style under a subject. It evaluates three prompts.",
        (PIX2PIX_PAPER,),
        "combine",
        {"middle": "The prompt between the guider's negative and positive one."},
        reads=guidance.dual_reads,
        aliases=("dual cfg", "nested guidance", "instructpix2pix", "two prompts"),
    ),
    Guidance(
        "AnotherPrompt",
        "Another Prompt",
        guidance.another,
        "Adds a further prompt, towards it or away from it, with a scale of its own.",
        "Chain one for each prompt. Each costs one more evaluation a model call.",
        (COMPOSED_PAPER,),
        "prompt",
        {"other": "The further prompt."},
        reads=guidance.another_reads,
        aliases=("composable diffusion", "several prompts", "and"),
    ),
    Guidance(
        "Rescale",
        "Guidance Rescale",
        guidance.rescale,
        "Gives the guided prediction the contrast of the conditional one, which high scales overdo.",
        "phi 0.5 to 0.7 at scale 7 and above.",
        (SPACING_PAPER,),
        "result",
        aliases=("rescale cfg", "guidance rescale"),
    ),
    Guidance(
        "Threshold",
        "Dynamic Thresholding",
        guidance.threshold,
        "Clips the largest values of each image and brings the rest back into range.",
        "Pixel models at high scales; for latent models prefer Guidance Rescale or Adaptive Projected Guidance.",
        (IMAGEN_PAPER,),
        "result",
        aliases=("dynamic thresholding", "imagen"),
    ),
)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "CFGCombine",
        "CFG Combine",
        algebra.guided,
        {"positive": "What the picture should be.", "negative": "What it is moved away from."},
        "Guidance of two predictions, each of which may be an expression itself.",
        "With two plain predictions and a guider it is the same as CFG Guider (Stepwise).",
        (CFG_PAPER,),
        rule="Rules that change how the guidance acts.",
        aliases=("cfg", "guidance", "classifier-free guidance"),
    ),
    Operation(
        "AddPredictions",
        "Add Predictions",
        algebra.add,
        {"a": "A prediction or a difference of predictions.", "b": "Another one."},
        "Weighted sum of two predictions; with -1 for b, their difference.",
        "For guidance by hand: the difference of two predictions, scaled, is added to a third.",
        aliases=("subtract", "difference", "sum"),
    ),
    Operation(
        "ScalePrediction",
        "Scale Prediction",
        algebra.scale,
        {"prediction": "Usually a difference of predictions."},
        "Multiplies a prediction by a number, or by a curve of the noise level.",
        "For differences: a whole prediction must keep the factor 1.",
        rule="Makes the factor depend on the noise level: a curve or an interval. Outside an interval it is 1.",
        aliases=("multiply", "strength", "curve"),
    ),
    Operation(
        "MixPredictions",
        "Mix Predictions",
        algebra.mix,
        {"a": "The prediction at amount 0.", "b": "The prediction at amount 1."},
        "Weighted mean of two predictions.",
        "Two prompts in one picture: 0.5 is half of each.",
        rule="Makes the amount depend on the noise level: a curve or an interval. Outside an interval it is 1.",
        aliases=("average", "blend", "interpolate", "lerp"),
    ),
    Operation(
        "CrossfadePredictions",
        "Crossfade Predictions",
        algebra.crossfade,
        {"a": "The prediction where the curve is 0.", "b": "The prediction where the curve is 1."},
        "From one prediction to another along a drawn curve of the noise level.",
        "One prompt for the composition, which is settled at high noise, and another for the details.",
        curves={"curve": "How much of b. Left is high noise."},
        aliases=("curve", "schedule", "prompt editing", "blend"),
    ),
    Operation(
        "SwitchPrediction",
        "Switch Prediction",
        algebra.switch,
        {"inside": "Used in the interval.", "outside": "Used at all other noise levels."},
        "One prediction in an interval of noise levels, another outside; only the one that is used is evaluated.",
        "Guidance in an interval, or a change of prompt at a noise level.",
        aliases=("interval", "prompt editing", "start end"),
    ),
    Operation(
        "ProjectPrediction",
        "Project Prediction",
        algebra.project,
        {"prediction": "What is taken apart.", "onto": "The direction."},
        "The part of a prediction that lies along another one.",
        "Taken apart like this, a guidance difference can be damped along the picture and kept across it.",
        aliases=("parallel", "projection"),
    ),
    Operation(
        "RejectPrediction",
        "Reject Prediction",
        algebra.reject,
        {"prediction": "What is taken apart.", "onto": "The direction that is left out."},
        "What is left of a prediction without its part along another one.",
        "A negative prompt that leaves alone what it has in common with the positive one.",
        aliases=("orthogonal", "perpendicular", "perp neg"),
    ),
    Operation(
        "ClampPrediction",
        "Clamp Prediction",
        algebra.clamp,
        {"prediction": "Usually a difference of predictions."},
        "Limits the size of a prediction, image by image.",
        "For differences: guidance that never pushes harder than the limit.",
        aliases=("limit", "norm", "threshold"),
    ),
)
