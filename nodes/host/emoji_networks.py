"""The networks of the Emoji model: a codec of pictures, a text side and the host's own UNet."""

import comfy.latent_formats
import comfy.model_sampling
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from .small_models import LatentConsistency

SIZE, RATIO, CHANNELS = 64, 8, 16
CONTEXT = 128
# Stable Diffusion's: betas linear in their square root from 0.00085 to 0.012 over 1000 steps.
SAMPLING = {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}


class EmojiLatent(comfy.latent_formats.LatentFormat):
    """16 channels at an eighth of the size; the codec gives them mean 0 and variance 1, so nothing is scaled here."""

    latent_channels = CHANNELS
    spacial_downscale_ratio = RATIO

    def __init__(self):
        self.scale_factor = 1.0


class Residual(nn.Module):
    """x -> x + conv silu conv silu x."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(), convolution(channels, channels), nn.SiLU(), convolution(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


class Codec(nn.Module):
    """`[N, 3, H, W]` in [-1, 1] <-> `[N, 16, H / 8, W / 8]`, each channel of mean 0 and variance 1.

    The variance is kept by a normalisation whose figures are fixed after training, and training adds noise to the
    latents: together they bound what one number can say, so that near latents decode to near pictures.
    """

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            convolution(3, 24),
            convolution(24, 48, 2),
            Residual(48),
            convolution(48, 96, 2),
            Residual(96),
            convolution(96, 96, 2),
            Residual(96),
            nn.SiLU(),
            convolution(96, CHANNELS),
            nn.BatchNorm2d(CHANNELS, affine=False, momentum=0.01),
        )
        self.decoder = nn.Sequential(
            convolution(CHANNELS, 128),
            Residual(128),
            Residual(128),
            nn.Upsample(scale_factor=2, mode="nearest"),
            convolution(128, 96),
            Residual(96),
            nn.Upsample(scale_factor=2, mode="nearest"),
            convolution(96, 48),
            Residual(48),
            Residual(48),
            nn.SiLU(),
            convolution(48, 64),
            nn.PixelShuffle(2),
            nn.SiLU(),
            convolution(16, 3),
        )

    def encode(self, pixels: Tensor, **_) -> Tensor:
        return self.encoder(pixels)

    def decode(self, samples: Tensor, **_) -> Tensor:
        if samples.shape[1] != CHANNELS:
            raise ValueError(
                f"The VAE of StepwiseEmojiModel decodes latents of {CHANNELS} channels, this one has "
                f"{samples.shape[1]}: wire a latent that was sampled with the Emoji model."
            )
        return self.decoder(samples)


class Text(nn.Module):
    """Word numbers `[N, tokens]`, each below `numbers`, -> context `[N, tokens, 128]`; token 0 is the whole prompt."""

    def __init__(self, numbers: int, tokens: int):
        super().__init__()
        self.table = nn.Embedding(numbers, CONTEXT)
        self.place = nn.Parameter(torch.randn(tokens, CONTEXT) * 0.1)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                CONTEXT, 4, 2 * CONTEXT, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(CONTEXT)

    def forward(self, numbers: Tensor) -> Tensor:
        x = self.table(numbers) + self.place
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


def build_unet(dtype: torch.dtype = torch.float32, operations=comfy.ops.disable_weight_init, device=None) -> UNetModel:
    """The host's own UNet at 4.82 million parameters, so that every attention and block patch acts on it.

    Two levels of 96 channels, 8 x 8 and 4 x 4, two and one residual blocks, each with a transformer.

    The host's layers come uninitialised: load weights, or initialise them.
    """
    return UNetModel(
        image_size=SIZE // RATIO,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        model_channels=96,
        num_res_blocks=[2, 1],
        channel_mult=(1, 1),
        transformer_depth=[1, 1, 1],
        transformer_depth_middle=1,
        transformer_depth_output=[1, 1, 1, 1, 1],
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        num_head_channels=32,
        context_dim=CONTEXT,
        legacy=False,
        dtype=dtype,
        device=device,
        operations=operations,
    )


def low_rank(unet: nn.Module, rank: int) -> dict[str, Tensor]:
    """Factors of a change of every weight matrix of `unet`, `NAME.up` and `NAME.down`; the change is zero at first."""
    factors = {}
    for name, weight in unet.named_parameters():
        if weight.ndim > 1:
            factors[f"{name}.up"] = torch.zeros(len(weight), rank)
            factors[f"{name}.down"] = torch.randn(rank, weight[0].numel()) / rank
    return factors


def changed(weights: dict[str, Tensor], factors: dict[str, Tensor]) -> dict[str, Tensor]:
    """W + up down for every weight that has factors (LoRA, arXiv:2106.09685, equation 3)."""
    return {
        name: w + (factors[f"{name}.up"] @ factors[f"{name}.down"]).view_as(w) if f"{name}.up" in factors else w
        for name, w in weights.items()
    }


class EmojiLCMSampling(
    LatentConsistency, comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION
):
    """v prediction under the boundary condition of a latent consistency model."""
