"""Which solver of Stepwise is which scheduler of diffusers."""

from .twins import BOTH, COLD, FLOW, FULL, PUBLISHED, VE, Single, Twin

OWN = "tests/samplers/test_references.py::"
MORE = "tests/samplers/test_references_more.py::"
MULTISTEP, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
SDE = {"algorithm_type": "sde-dpmsolver++"}
CUT = {"final_sigmas_type": "sigma_min", "lower_order_final": False}
ENDS_ABOVE_0 = "Ends above 0: to 0 diffusers gives NaN."
FEW, MANY = "Fewer than 15 steps.", "15 steps or more."

DIFFUSERS: tuple[Twin, ...] = (
    Twin("DDPMScheduler", {"variance_type": "fixed_small"}, "DDPM", {}, VE, test=OWN + "test_ddpm"),
    Twin(
        "DDPMScheduler",
        {"variance_type": "fixed_large"},
        "DDPM",
        {"variance": "large"},
        VE,
        "On schedules that end at timestep 0: from another one diffusers adds noise to the finished picture too.",
        OWN + "test_ddpm",
    ),
    Twin(
        "DDIMScheduler",
        {"eta": 0.5},
        "DDIM",
        {"eta": 0.5},
        VE,
        "Any eta. Where the timesteps lie T // n apart, which diffusers takes for granted.",
        OWN + "test_ddim",
    ),
    Twin(
        "LCMScheduler",
        {},
        "LCM",
        {},
        VE,
        "diffusers' boundary scalings c_skip and c_out belong to the model here.",
        OWN + "test_lcm",
    ),
    Twin("EulerDiscreteScheduler", {}, "Euler", {}, VE),
    Twin(
        "EulerDiscreteScheduler",
        {"s_churn": 5.0},
        "Euler",
        {"s_churn": 5.0},
        VE,
        "If the model is called after the churn, as in the paper; diffusers calls it before.",
        OWN + "test_euler_with_churn",
    ),
    Twin("EulerAncestralDiscreteScheduler", {}, "EulerAncestral", {}, VE, "DDPM and DDIM with eta 1 are the same."),
    Twin("EulerAncestralDiscreteScheduler", {}, "DDPM", {}, VE),
    Twin(
        "LTXEulerAncestralRFScheduler",
        {},
        "EulerAncestral",
        {},
        FLOW,
        "To 1e-8 in float64: diffusers adds 1e-12 to alpha.",
        bound=1e-8,
    ),
    Twin("HeunDiscreteScheduler", {}, "Heun", {}, VE),
    Twin(
        "PNDMScheduler",
        {"skip_prk_steps": True},
        "PLMS",
        {},
        VE,
        "All steps but the one to 0, which diffusers does not make a plain one. Where the timesteps lie T // n apart, "
        "which diffusers takes for granted.",
        MORE + "test_plms",
    ),
    Twin("KDPM2DiscreteScheduler", {}, "DPMSolver", {}, VE, test=OWN + "test_dpm_2_of_k_diffusion"),
    Twin("KDPM2AncestralDiscreteScheduler", {}, "DPM2Ancestral", {}, VE, test=MORE + "test_dpm_2_ancestral"),
    Twin(
        "SASolverScheduler",
        {"predictor_order": 1, "corrector_order": 1, "tau_func": 1},
        "SASolver",
        {
            "predictor_order": 1,
            "corrector_order": 1,
            "sde_start": 20000.0,
            "sde_end": 0.0,
        },
        VE,
        "Its own schedule ends at the lowest level of the model.",
        MORE + "test_sa_solver",
    ),
    *(
        Twin(
            "LMSDiscreteScheduler",
            {"order": order},
            "LMS",
            {"order": order, **COLD, **FULL},
            VE,
            "All steps but the one to 0, which diffusers does not make a plain one." if order > 1 else "",
        )
        for order in (1, 2, 3, 4)
    ),
    Twin(
        "DPMSolverSDEScheduler",
        {},
        "DPMppSDE",
        {},
        VE,
        "Given our composition of the noise over the two parts of a step.",
        MORE + "test_dpm_solver_sde",
    ),
    Twin(
        "DPMSolverSinglestepScheduler",
        {"algorithm_type": "dpmsolver", "solver_order": 2},
        "DPMSolver",
        {},
        BOTH,
        "On our inner points; to a level above 0.",
        OWN + "test_dpm_solver",
    ),
    Twin(
        "DPMSolverSinglestepScheduler",
        {"algorithm_type": "dpmsolver", "solver_order": 3},
        "DPMSolver",
        {"order": "3"},
        BOTH,
        "With solver_type heun in the second call of a step and midpoint in the third; neither alone is the paper's.",
        MORE + "test_dpm_solver_3",
    ),
    Twin(
        "DPMSolverSinglestepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2},
        "DPMpp2S",
        {},
        BOTH,
        "On our inner points; to a level above 0.",
        MORE + "test_dpmpp_2s",
    ),
    Twin(MULTISTEP, {"solver_order": 1}, "DDIM", {}, BOTH),
    Twin(MULTISTEP, {"solver_order": 2, "solver_type": "midpoint"}, "DPMpp2M", {}, BOTH),
    Twin(MULTISTEP, {"solver_order": 2, "solver_type": "midpoint"}, "DPMpp2MSDE", {"eta": 0.0, **FULL}, BOTH),
    Twin(
        MULTISTEP,
        {"solver_order": 2, "solver_type": "heun"},
        "DPMpp2MSDE",
        {"solver_type": "heun", "eta": 0.0, **FULL},
        BOTH,
    ),
    Twin(
        MULTISTEP, {"solver_order": 3, "solver_type": "heun"}, "DPMpp3M", PUBLISHED, BOTH, FEW, steps=(1, 2, 3, 10, 14)
    ),
    Twin(
        MULTISTEP,
        {"solver_order": 3, "solver_type": "heun"},
        "DPMpp3M",
        {**PUBLISHED, **FULL},
        BOTH,
        MANY,
        steps=(15, 20),
    ),
    Twin(
        MULTISTEP,
        {"solver_order": 3, "solver_type": "heun", "lower_order_final": False},
        "DPMpp3M",
        {**PUBLISHED, **FULL},
        BOTH,
    ),
    Twin(MULTISTEP, {**SDE, "solver_order": 1}, "DDPM", {}, BOTH),
    *(
        Twin(
            MULTISTEP,
            {**SDE, "solver_order": 2, "solver_type": kind},
            "DPMpp2MSDE",
            {"solver_type": kind, **FULL},
            BOTH,
            # 20 steps bring one of the 16 samples between two components on FLOW, where float32 loses it.
            steps=(1, 2, 10, 15),
        )
        for kind in ("midpoint", "heun")
    ),
    Twin("EDMDPMSolverMultistepScheduler", {"solver_order": 2}, "DPMpp2M", {}, VE),
    *(
        Twin(
            UNIPC,
            {"solver_order": order, "solver_type": variant, **end},
            "UniPC",
            {"order": order, "variant": variant, **COLD},
            BOTH,
            note,
        )
        for order in (1, 2, 3)
        for variant, end, note in (("bh2", {}, ""), ("bh1", CUT, ENDS_ABOVE_0))
    ),
    Twin(
        "DEISMultistepScheduler",
        {"solver_order": 1, "lower_order_final": False},
        "DEIS",
        {"order": 1},
        VE,
        "To a level above 0.",
    ),
    Twin("EDMEulerScheduler", {}, "Euler", {}, VE),
    Twin("FlowMatchEulerDiscreteScheduler", {}, "Euler", {}, FLOW),
    Twin("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "LCM", {}, FLOW),
    Twin("FlowMatchHeunDiscreteScheduler", {}, "Heun", {}, FLOW),
    Twin("FlowMatchLCMScheduler", {}, "LCM", {}, FLOW),
)

NOT_DIFFUSERS: tuple[Single, ...] = (
    Single(
        ("DPMSolverMultistepScheduler, sde-dpmsolver++ of order 3",),
        "Wrong there: the weight of the second difference has - 0.5 where + 0.5 is right, so it does not vanish with "
        "the step. With the sign put right it is DPM++ 3M SDE with `weights` published and `final_order` full.",
    ),
    Single(
        ("DPMSolverMultistepScheduler, order 3 with solver_type midpoint",),
        "Its steps of order 2 use the midpoint form, ours the exact integral: 6e-3 apart in a run of 10 steps.",
    ),
    Single(
        ("DPMSolverMultistepScheduler, dpmsolver and sde-dpmsolver",),
        "Out of scope, because multistep in the noise prediction is what diffusers has deprecated.",
    ),
    Single(
        ("DEISMultistepScheduler, orders 2 and 3",),
        "Its polynomial runs in log sigma, ours and ComfyUI's in the time of the diffusion: 1e-2 and 3e-2 apart in a "
        "run of 10 steps.",
    ),
    Single(
        ("UniPCMultistepScheduler, predict_x0 off, solver_p or disable_corrector set for some steps",),
        "Out of scope, because all solvers here predict the clean image, and each is one method for the whole run.",
    ),
    Single(
        (
            "CMStochasticIterativeScheduler",
            "ScoreSdeVeScheduler",
            "CosineDPMSolverMultistepScheduler",
            "IPNDMScheduler",
        ),
        "Out of scope, because each is for models with noise levels of their own: consistency models and NCSN++ of "
        "ImageNet and faces, Stable Audio, Dance Diffusion.",
    ),
    Single(
        ("DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"),
        "Out of scope, because every solver that adds no noise goes up on an ascending schedule.",
    ),
    Single(
        ("RePaintScheduler",),
        "Out of scope, because it is a way of inpainting; masks are ComfyUI's here, under every solver.",
    ),
    Single(
        ("TCDScheduler",),
        "Out of scope, because it is for models distilled by TCD alone.",
    ),
    Single(
        ("SASolverScheduler, orders 2 and 3",),
        "Its steps with two predictions have another formula, in the middle of a run of order 3 too.",
    ),
)
