"""Stable Diffusion 1.5's UNet and VAE with random weights, in the diffusers layout, and inputs for them."""
import json
import pathlib

import safetensors.torch
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel


def networks():
    torch.manual_seed(1)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    channels = (128, 256, 512, 512)
    vae = AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    # Weights that f16 holds exactly, so that both sides compute with the same ones.
    for network in (unet, vae):
        for parameter in network.parameters():
            parameter.data = parameter.data.half().float()
    return {"unet": unet.eval(), "vae": vae.eval()}


def small_vae():
    return AutoencoderKL()


def save(networks, folder, dtype=torch.float16):
    """The model as a folder. The networks themselves stay as they are, in f32."""
    folder = pathlib.Path(folder)
    for name, network in networks.items():
        network.save_config(folder / name)
        tensors = {key: value.to(dtype).contiguous() for key, value in network.state_dict().items()}
        safetensors.torch.save_file(tensors, folder / name / "diffusion_pytorch_model.safetensors")
    classes = {name: ["diffusers", type(network).__name__] for name, network in networks.items()}
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", **classes}
    (folder / "model_index.json").write_text(json.dumps(index))


def inputs(component, latent):
    """What `ornstein forward` takes for latents of this height and width."""
    torch.manual_seed(2)
    if component == "vae-decoder":
        return {"z": torch.randn(1, 4, latent, latent)}
    return {
        "sample": torch.randn(1, 4, latent, latent),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 77, 768),
    }
