"""The papers and programs that entries cite, by short names."""

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
RES_PAPER = (
    "Zhang, Song and Chen 2023, Improved Order Analysis and Design of Exponential Integrator for Diffusion Models "
    "Sampling, arXiv:2308.02157"
)
EXPONENTIAL_PAPER = (
    "Hochbruck and Ostermann 2005, Explicit Exponential Runge-Kutta Methods for Semilinear Parabolic Problems, "
    "SIAM Journal on Numerical Analysis 43(3)"
)
SEEDS_PAPER = (
    "Gonzalez, Fernandez, Tran, Gherbi, Hajri and Masmoudi 2023, SEEDS: Exponential SDE Solvers for Fast High-Quality "
    "Sampling from Diffusion Models, arXiv:2305.14267"
)
SA_PAPER = (
    "Xue, Yi, Luo, Zhang, Sun, Li and Ma 2023, SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion "
    "Models, arXiv:2309.05019"
)
ER_SDE_PAPER = (
    "Cui, Zhang, Bao and Liao 2023, Elucidating the Solution Space of Extended Reverse-Time SDE for Diffusion Models, "
    "arXiv:2309.06169"
)
GRADIENT_PAPER = (
    "Permenter and Yuan 2024, Interpreting and Improving Diffusion Models from an Optimization Perspective, "
    "arXiv:2306.04848"
)
DEIS_PAPER = "Zhang and Chen 2023, Fast Sampling of Diffusion Models with Exponential Integrator, arXiv:2204.13902"
PNDM_PAPER = "Liu, Ren, Lin and Zhao 2022, Pseudo Numerical Methods for Diffusion Models on Manifolds, arXiv:2202.09778"
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
FLUX2 = "Black Forest Labs 2025, FLUX.2, github.com/black-forest-labs/flux2"
OPTIMAL_PAPER = "Pei, Hu and Gu 2025, Optimal Stepsize for Diffusion Sampling, arXiv:2503.21774"
LTX_PAPER = "HaCohen and others 2024, LTX-Video: Realtime Video Latent Diffusion, arXiv:2501.00103"
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
TCFG_PAPER = "Kwon, Kim, Jeong, Hsiao and Uh 2025, TCFG: Tangential Damping Classifier-free Guidance, arXiv:2503.18137"
FDG_PAPER = (
    "Sadat, Vontobel, Salehi and Weber 2025, Guidance in the Frequency Domain Enables High-Fidelity Sampling at Low "
    "CFG Scales, arXiv:2506.19713"
)
MAMBO_PAPER = "Zhu and others 2025, MAMBO-G: Magnitude-Aware Mitigation for Boosted Guidance, arXiv:2508.03442"
MOMENTUM_PAPER = (
    "Liao, Yu, Su, Zhang, Chen and Liu 2026, Momentum Guidance: Plug-and-Play Guidance for Flow Models, "
    "arXiv:2602.20360"
)
SMC_PAPER = (
    "Wang, Liu, Chi, Liu, Xue and Duan 2026, CFG-Ctrl: Control-Based Classifier-Free Diffusion Guidance, "
    "arXiv:2603.03281"
)
PAG_PAPER = (
    "Ahn and others 2024, Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance, arXiv:2403.17377"
)
SLG = "Stability AI 2024, Skip Layer Guidance, github.com/Stability-AI/sd3.5"
COMFYUI_CFG_NORM = "ComfyUI, CFGNorm, github.com/comfyanonymous/ComfyUI"
CFG_PAPER = "Ho and Salimans 2022, Classifier-Free Diffusion Guidance, arXiv:2207.12598"
LD3_PAPER = (
    "Tong, Hoang, Liu, Van den Broeck and Niepert 2024, Learning to Discretize Denoising Diffusion ODEs, "
    "arXiv:2405.15506"
)
S4S_PAPER = "Frankel, Chen, Li, Koh, Ratliff and Oh 2025, S4S: Solving for a Diffusion Model Solver, arXiv:2502.17423"
