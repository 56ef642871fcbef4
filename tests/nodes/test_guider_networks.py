"""ComfyUI's own flow networks, as miniatures with random weights, take what the plain path gives them: in float32 the
very x of the sampler, without a copy for each prompt."""

import comfy.ops
import pytest
import torch
from comfy.ldm.flux.model import Flux
from comfy.ldm.lightricks.model import LTXVModel
from comfy.ldm.lumina.model import NextDiT
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.ldm.wan.model import WanModel
from guided_models import OneCall, guiders, largest
from toy_models import Latent4, toy_model

SETTINGS = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}
EMBEDDER = {"target": "torch.nn.Linear", "params": {"in_features": 32, "out_features": 64}}


class Network(torch.nn.Module):
    """A network of the host, with the pooled prompt that some of them want."""

    def __init__(self, network, pooled=0):
        super().__init__()
        self.network, self.pooled, self.dtype = network, pooled, torch.float32
        generator = torch.Generator().manual_seed(0)
        # Buffers too: the host leaves some as the memory happens to be, until weights are loaded.
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                tensor.data = 0.1 * torch.randn(tensor.shape, generator=generator)

    def forward(self, x, timesteps, context=None, **kwargs):
        given = {"y": x.new_ones(len(x), self.pooled)} if self.pooled else {}
        if isinstance(self.network, NextDiT):
            given = {"num_tokens": context.shape[1]}
        if isinstance(self.network, LTXVModel):
            given = {"attention_mask": None}
        return self.network(x, timesteps, context=context, **given, **kwargs)


def flux():
    sizes = {"in_channels": 4, "out_channels": 4, "vec_in_dim": 8, "context_in_dim": 32, "hidden_size": 64}
    shape = {"mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1, "axes_dim": [8, 12, 12]}
    rest = {"theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": []}
    return Network(Flux(**sizes, **shape, **rest, **SETTINGS), 8)


def sd3():
    sizes = {"input_size": 8, "in_channels": 4, "depth": 1, "adm_in_channels": 8, "pos_embed_max_size": 8}
    return Network(MMDiT(**sizes, num_patches=64, context_embedder_config=EMBEDDER, **SETTINGS), 8)


def wan():
    sizes = {"in_dim": 4, "out_dim": 4, "dim": 96, "ffn_dim": 64, "text_dim": 32, "num_heads": 2, "num_layers": 1}
    return Network(WanModel(**sizes, **SETTINGS))


def lumina():
    sizes = {"in_channels": 4, "dim": 64, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "cap_feat_dim": 32}
    return Network(NextDiT(**sizes, axes_dims=(8, 12, 12), axes_lens=(32, 32, 32), qk_norm=True, **SETTINGS))


def qwen():
    sizes = {"in_channels": 16, "out_channels": 4, "num_layers": 1, "attention_head_dim": 32, "num_attention_heads": 2}
    return Network(QwenImageTransformer2DModel(**sizes, joint_attention_dim=32, axes_dims_rope=(8, 12, 12), **SETTINGS))


def ltxv():
    sizes = {"in_channels": 4, "cross_attention_dim": 64, "attention_head_dim": 32, "num_attention_heads": 2}
    return Network(LTXVModel(**sizes, caption_channels=32, num_layers=1, **SETTINGS))


NETWORKS = {
    flux: (1, 4, 8, 8),
    sd3: (1, 4, 8, 8),
    wan: (1, 4, 3, 8, 8),
    lumina: (1, 4, 8, 8),
    qwen: (1, 4, 1, 8, 8),
    ltxv: (1, 4, 3, 8, 8),
}


def words(seed):
    return [[torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(seed)), {}]]


@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_the_hosts_flow_networks_predict_the_same_and_leave_x_alone(make):
    form = Latent4()
    form.latent_dimensions = len(NETWORKS[make]) - 2
    model = toy_model("FLOW", make(), form)
    outputs = []
    for guider in guiders(model, words(1), words(2), 5.0):
        sampler, shape = OneCall(), NETWORKS[make]
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(5))
        guider.sample(noise, torch.zeros(shape), sampler, torch.tensor([0.7, 0.0]))
        assert torch.equal(sampler.x, noise * torch.tensor(0.7))
        outputs.append(sampler.denoised)
    assert outputs[1].isfinite().all()
    assert largest(*outputs) < 1e-6
