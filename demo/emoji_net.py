"""The networks of the Emoji model: a codec of pictures, a text side and the host's own UNet.

Only torch and the host are needed here, so that training and the nodes share it.
"""

from functools import cache

import comfy.latent_formats
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

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
    """x -> relu(x + conv relu conv x)."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Codec(nn.Module):
    """`[N, 3, H, W]` in [-1, 1] <-> `[N, 16, H / 8, W / 8]` of mean 0 and a mean variance of 1.

    Encoding is linear: the first 16 principal components of squares of 8 x 8 pixels. Decoding is its transpose and a
    small network, which sees the neighbouring squares and adds what the components leave out.
    """

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(3, CHANNELS, RATIO, RATIO)
        self.linear = nn.ConvTranspose2d(CHANNELS, 3, RATIO, RATIO)
        self.refine = nn.Sequential(
            convolution(CHANNELS, 128),
            nn.ReLU(),
            Residual(128),
            Residual(128),
            nn.Upsample(scale_factor=2, mode="nearest"),
            convolution(128, 64),
            nn.ReLU(),
            Residual(64),
            nn.Upsample(scale_factor=2, mode="nearest"),
            convolution(64, 32),
            nn.ReLU(),
            Residual(32),
            convolution(32, 12),
            nn.PixelShuffle(2),
        )

    def encode(self, pixels: Tensor, **_) -> Tensor:
        return self.encoder(pixels)

    def decode(self, samples: Tensor, **_) -> Tensor:
        if samples.shape[1] != CHANNELS:
            raise ValueError(
                f"The VAE of StepwiseEmojiModel decodes latents of {CHANNELS} channels, this one has "
                f"{samples.shape[1]}: wire a latent that was sampled with the Emoji model."
            )
        return self.linear(samples) + self.refine(samples)


@torch.no_grad()
def fit_components(codec: Codec, pixels: Tensor) -> None:
    """Sets the linear part of `codec` from pictures `[N, 3, H, W]` in [-1, 1].

    A component of deviation s is divided by sqrt(s), halfway between equal pixels and equal channels, so that coarse
    components stand out from the noise first without drowning the fine ones; all are then scaled to a mean variance
    of 1.
    """
    patches = nn.functional.unfold(pixels, RATIO, stride=RATIO).transpose(1, 2).reshape(-1, 3 * RATIO**2).double()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    deviations = values[-CHANNELS:].flip(0).sqrt()
    components = vectors[:, -CHANNELS:].flip(1).T
    scales = deviations.sqrt() * deviations.mean().sqrt()
    codec.encoder.weight.copy_((components / scales[:, None]).view(CHANNELS, 3, RATIO, RATIO))
    codec.encoder.bias.copy_(-(components @ mean) / scales)
    codec.linear.weight.copy_((components * scales[:, None]).view(CHANNELS, 3, RATIO, RATIO))
    # The transpose has one bias a channel, and the mean square is flat: what it leaves is far below a grey level.
    codec.linear.bias.copy_(mean.view(3, -1).mean(1))


class Text(nn.Module):
    """Word numbers `[N, tokens]`, each below `numbers`, -> context `[N, tokens, 128]`; token 0 is the whole prompt."""

    def __init__(self, numbers: int, tokens: int):
        super().__init__()
        self.table = nn.Embedding(numbers, CONTEXT)
        self.place = nn.Parameter(torch.randn(tokens, CONTEXT) * 0.1)
        self.layer = nn.TransformerEncoderLayer(
            CONTEXT, 4, 2 * CONTEXT, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(CONTEXT)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.norm(self.layer(self.table(numbers) + self.place))


class EmojiUNet(UNetModel):
    """The host's UNet around a first guess that the context's token 0 gives: nothing but the context is needed.

    The token is the class vector, and a *hint* is made of it: a rough latent h, which stands beside x, and how far
    each of its channels is off, s. If x_0 were normal around h with deviation s, then with x_t = alpha x_0 + sigma e

        v = alpha e - sigma x_0
        E[v | x_t] = alpha sigma (1 - s^2) (x_t - alpha h) / (alpha^2 s^2 + sigma^2) - sigma h

    (Bayes for two normals.) The UNet adds what this leaves out; with h = 0 and s = 1 it vanishes, which is plain v
    prediction. Without the hint the UNet would have to find out where things stand from the padding of its
    convolutions alone.
    """

    HIDDEN = 384

    def __init__(self, *args, operations, device=None, **kwargs):
        super().__init__(*args, operations=operations, device=device, **kwargs)
        side, dtype = SIZE // RATIO, kwargs["dtype"]
        self.hint = nn.Sequential(
            operations.Linear(CONTEXT, self.HIDDEN, dtype=dtype, device=device),
            nn.SiLU(),
            operations.Linear(self.HIDDEN, CHANNELS * side * side, dtype=dtype, device=device),
        )
        self.spread = operations.Linear(CONTEXT, CHANNELS, dtype=dtype, device=device)

    def hints(self, token: Tensor, height: int = SIZE // RATIO, width: int = SIZE // RATIO) -> Tensor:
        """`[N, 128]` -> `[N, 16, height, width]`."""
        maps = self.hint(token).unflatten(1, (CHANNELS, SIZE // RATIO, SIZE // RATIO))
        if maps.shape[-2:] == (height, width):
            return maps
        return nn.functional.interpolate(maps, (height, width), mode="bilinear", align_corners=False)

    def log_variance(self, token: Tensor) -> Tensor:
        """ln s^2 of the hint, `[N, 128]` -> `[N, 16, 1, 1]`."""
        return self.spread(token).clamp(-4.0, 0.5)[..., None, None]

    def forward(self, x, timesteps=None, context=None, y=None, control=None, transformer_options={}, **kwargs):  # noqa: B006
        token = context[:, 0]
        hint = self.hints(token, *x.shape[-2:]).to(x.dtype)
        rest = super().forward(
            torch.cat([x, hint], dim=1), timesteps, context, token, control, transformer_options, **kwargs
        )
        squared = alphas_cumprod().to(x)[timesteps.long()].view(-1, 1, 1, 1)
        alpha, sigma, variance = squared.sqrt(), (1.0 - squared).sqrt(), self.log_variance(token).detach().exp().to(x)
        scale = alpha * sigma * (1.0 - variance) / (squared * variance + 1.0 - squared)
        return rest + scale * (x - alpha * hint) - sigma * hint


@cache
def alphas_cumprod() -> Tensor:
    """alpha^2 of the 1000 timesteps."""
    roots = torch.linspace(
        SAMPLING["linear_start"] ** 0.5, SAMPLING["linear_end"] ** 0.5, SAMPLING["timesteps"], dtype=torch.float64
    )
    return (1.0 - roots.square()).cumprod(0).float()


def build_unet(dtype: torch.dtype = torch.float32, operations=comfy.ops.disable_weight_init, device=None) -> EmojiUNet:
    """Two levels of 64 channels, 8 x 8 and 4 x 4, one residual block each, transformers below and in the middle.

    The host's layers come uninitialised: load weights, or initialise them.
    """
    return EmojiUNet(
        image_size=SIZE // RATIO,
        in_channels=2 * CHANNELS,
        out_channels=CHANNELS,
        model_channels=64,
        num_res_blocks=[1, 1],
        channel_mult=(1, 1),
        num_classes="sequential",
        adm_in_channels=CONTEXT,
        transformer_depth=[0, 1],
        transformer_depth_middle=1,
        transformer_depth_output=[0, 0, 1, 1],
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        num_head_channels=32,
        context_dim=CONTEXT,
        legacy=False,
        dtype=dtype,
        device=device,
        operations=operations,
    )
