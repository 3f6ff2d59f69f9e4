#!/usr/bin/env python3
"""Write what kernels-tests/controlnet.rs and checkpoints.rs need to know of ControlNets.

    pip install torch diffusers transformers accelerate safetensors pillow
    python make_controlnet.py                        # writes beside itself, into single/ and controlnet/

The weights are functions of their names alone, as in make_single_file.py, the convolutions that training begins with
zeros among them. What is kept:
    single/controlnet-FAMILY.json.gz, .safetensors   a ControlNet as a file in the original key layout, with inputs and
                        outputs of a pass, as make_single_file.py keeps models; diffusers' own `from_single_file` has to
                        give the same network back where its key map knows all of it
    controlnet/pictures.json         pictures that diffusers' ControlNet pipelines drew with the models of single/
    controlnet/pictures.safetensors  their latents after the last step, and what the image processor makes of picture.png
    controlnet/picture.png           what the ControlNets are shown
"""
import gzip
import json
import os
import tempfile

import numpy as np
import torch
from diffusers import (ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionXLControlNetPipeline)
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from safetensors.torch import save_file

from make_single_file import FAMILIES, HERE, OUT, fill, tidy, tokenizer, unet_key

PICTURES = os.path.join(HERE, "controlnet")
# As many stages as published ControlNets have, and as many as the small VAEs.
STAGES, SMALL_STAGES = (4, 8, 12, 16), (8, 12, 16)
UNET_KEYS = ["block_out_channels", "cross_attention_dim", "attention_head_dim", "layers_per_block", "down_block_types",
             "transformer_layers_per_block", "use_linear_projection", "addition_embed_type", "addition_time_embed_dim",
             "projection_class_embeddings_input_dim"]


def controlnet(component, family, stages, **more):
    config = {key: value for key, value in FAMILIES[family].unet.items() if key in UNET_KEYS} | more
    return fill(component, ControlNetModel(conditioning_embedding_out_channels=stages, **config))


def key(name, config):
    """A tensor's name in the original file."""
    part, kind = name.split("."), name.rsplit(".", 1)[1]
    if part[0] == "controlnet_cond_embedding":
        convs = 2 * len(config.conditioning_embedding_out_channels)
        number = {"conv_in": 0, "conv_out": convs - 1}.get(part[1]) if part[1] != "blocks" else int(part[2]) + 1
        return f"control_model.input_hint_block.{2 * number}.{kind}"
    if part[0] == "controlnet_down_blocks":
        return f"control_model.zero_convs.{part[1]}.0.{kind}"
    if part[0] == "controlnet_mid_block":
        return f"control_model.middle_block_out.0.{kind}"
    return "control_model." + unet_key(name, config)


def keys(module):
    """As make_single_file.py's `original`."""
    return {key(name, module.config): ["controlnet", [name], "whole", list(p.shape)] for name, p in module.named_parameters()}


def confirm(module, tensors):
    """diffusers must read the same network from the file."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model.safetensors")
        save_file(tidy(tensors), file)
        module.save_config(folder)
        read = ControlNetModel.from_single_file(file, config=folder, local_files_only=True, torch_dtype=torch.float32)
    want, got = module.state_dict(), read.state_dict()
    assert want.keys() == got.keys(), want.keys() ^ got.keys()
    for name, tensor in want.items():
        assert torch.equal(tensor, got[name]), name


def config(module):
    return dict(module.config) | {"_class_name": "ControlNetModel"}


def forward(module, g, size):
    c = module.config
    factor = 2 ** (len(c.conditioning_embedding_out_channels) - 1)
    inputs = {"sample": torch.randn((2, c.in_channels, *size), generator=g), "timestep": torch.tensor([801, 21]),
              "encoder_hidden_states": torch.randn((2, 5, c.cross_attention_dim), generator=g),
              "controlnet_cond": torch.rand((2, 3, size[0] * factor, size[1] * factor), generator=g),
              "conditioning_scale": torch.tensor(0.75)}
    added = {}
    if c.addition_embed_type:
        added["text_embeds"] = torch.randn((2, c.projection_class_embeddings_input_dim - 6 * 256), generator=g)
        added["time_ids"] = torch.tensor([[1024.0, 768.0, 0.0, 16.0, 1024.0, 1024.0]] * 2)
    with torch.no_grad():
        down, mid = module(*inputs.values(), added_cond_kwargs=added, return_dict=False)
    outputs = {f"down_block_res_samples_{i}": sample for i, sample in enumerate(down)} | {"mid_block_res_sample": mid}
    found = {f"controlnet.in.{name}": tensor for name, tensor in (inputs | added).items()}
    return found | {f"controlnet.out.{name}": tensor for name, tensor in outputs.items()}


def small(name, module, known):
    found = keys(module)
    if known:
        state = dict(module.named_parameters())
        confirm(module, {key: state[names[0]].detach() for key, (_, names, _, _) in found.items()})
    doc = {"tensors": found, "configs": {"controlnet": config(module)}, "metadata": {}}
    text = json.dumps(doc, separators=(",", ":"), default=list, sort_keys=True)
    with open(os.path.join(OUT, f"{name}.json.gz"), "wb") as f:
        f.write(gzip.compress(text.encode(), 9, mtime=0))
    g = torch.Generator().manual_seed(1)
    save_file(tidy(forward(module, g, (6, 7))), os.path.join(OUT, f"{name}.safetensors"))
    print("wrote", name, len(found), "tensors,", sum(p.numel() for p in module.parameters()), "parameters")


def pipeline(name, controls):
    family = FAMILIES[name]
    modules = {component: fill(component, module) for component, module in family.modules().items()}
    scheduler, options = family.scheduler
    parts = modules | {"scheduler": scheduler(**options), "controlnet": controls}
    for suffix in ["", "_2"]:
        if f"text_encoder{suffix}" in modules:
            pad = "!" if f"text_encoder{suffix}" in family.open_clip else "<|endoftext|>"
            parts[f"tokenizer{suffix}"] = tokenizer(pad)
    if name == "sdxl":
        return StableDiffusionXLControlNetPipeline(**parts, add_watermarker=False)
    return StableDiffusionControlNetPipeline(**parts, safety_checker=None, feature_extractor=None,
                                             requires_safety_checker=False)


def picture():
    """Smooth and sharp: 23 x 61 pixels, to be made wider and less high."""
    y, x = np.mgrid[0:61, 0:23].astype(np.float64)
    red = 127.5 + 127.5 * np.sin(x / 3) * np.cos(y / 7)
    green = 255.0 * ((x // 4 + y // 9) % 2)
    blue = (x * 37 + y * 91 + x * y * 13) % 256
    return Image.fromarray(np.stack([red, green, blue], -1).round().astype(np.uint8), "RGB")


def pictures():
    os.makedirs(PICTURES, exist_ok=True)
    image = picture()
    image.save(os.path.join(PICTURES, "picture.png"))
    width, height = 32, 40
    processor = VaeImageProcessor(vae_scale_factor=4, do_convert_rgb=True, do_normalize=False)
    sizes = {"image": (width, height), "image-tall": (16, 72), "image-low": (20, 20)}
    tensors = {name: processor.preprocess(image, width=w, height=h) for name, (w, h) in sizes.items()}
    cases = {
        "sd1-one": ("sd1", [dict(scale=0.8, start=0.0, end=1.0)]),
        "sd1-two": ("sd1", [dict(scale=1.0, start=0.0, end=0.6), dict(scale=0.5, start=0.25, end=1.0)]),
        "sdxl-one": ("sdxl", [dict(scale=0.7, start=0.0, end=1.0)]),
    }
    kept = {}
    for name, (family, controls) in cases.items():
        nets = [controlnet(f"controlnet-{i}", family, SMALL_STAGES) for i in range(len(controls))]
        draw = pipeline(family, nets if len(nets) > 1 else nets[0])
        draw.set_progress_bar_config(disable=True)
        each = lambda key: [c[key] for c in controls] if len(nets) > 1 else controls[0][key]
        case = dict(prompt="a photo of a cat", seed=7, steps=4, guidance=5.0)
        tensors[name] = draw(case["prompt"], image=[image] * len(nets) if len(nets) > 1 else image, height=height,
                             width=width, num_inference_steps=case["steps"], guidance_scale=case["guidance"],
                             generator=torch.Generator().manual_seed(case["seed"]), output_type="latent",
                             controlnet_conditioning_scale=each("scale"), control_guidance_start=each("start"),
                             control_guidance_end=each("end")).images
        kept[name] = case | dict(family=family, width=width, height=height, controls=controls,
                                 configs=[config(net) for net in nets])
        print("drew", name)
    save_file(tidy(tensors), os.path.join(PICTURES, "pictures.safetensors"))
    json.dump(kept, open(os.path.join(PICTURES, "pictures.json"), "w"), indent=1, default=list, sort_keys=True)


def main():
    small("controlnet-sd1", controlnet("controlnet", "sd1", STAGES), True)
    small("controlnet-sd2", controlnet("controlnet", "sd2", STAGES), True)
    # diffusers' key map lacks what SDXL adds to the time embedding.
    small("controlnet-sdxl", controlnet("controlnet", "sdxl", STAGES), False)
    # No tensor tells the width of a text that is not read: it is SDXL's.
    plain = dict(down_block_types=["DownBlock2D"] * 3, mid_block_type="UNetMidBlock2D", cross_attention_dim=2048)
    small("controlnet-small", controlnet("controlnet", "sdxl", STAGES, **plain), False)
    pictures()


if __name__ == "__main__":
    main()
