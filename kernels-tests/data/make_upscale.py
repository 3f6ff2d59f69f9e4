#!/usr/bin/env python3
"""Write what kernels-tests/upscale.rs needs to know of the models that work on a picture.

    pip install torch diffusers transformers accelerate safetensors pillow
    python make_upscale.py                           # writes beside itself, into upscale/

The models are `x4` and `pix2pix` of make_single_file.py. What is kept:
    pictures.json           pictures that diffusers' StableDiffusionUpscalePipeline and
                            StableDiffusionInstructPix2PixPipeline drew of controlnet/picture.png
    pictures.safetensors    their latents after the last step, NCHW, one seed after the other; what Pillow's bicubic
                            filter makes of the picture; latents whose UNet saw them in windows (MultiDiffusion)
    tiled-0.png, -1.png     pictures of the built-in model (assets/demo-model) that were decoded in tiles
"""
import functools
import json
import os

import numpy as np
import torch
from diffusers import (DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler,
                       StableDiffusionPipeline)
from PIL import Image
from safetensors.torch import save_file

from make_single_file import FAMILIES, HERE, fill, others, tidy, tokenizer

OUT = os.path.join(HERE, "upscale")
DEMO = os.path.join(HERE, "..", "..", "assets", "demo-model")
SAMPLERS = {"ddim": DDIMScheduler, "dpm++2m": DPMSolverMultistepScheduler, "euler-a": EulerAncestralDiscreteScheduler}
# The picture has 23 x 61 pixels, which is not a multiple of the small VAEs' factor, 4.
CASES = {
    "x4": dict(model="x4", prompt="a white cat", steps=4, batch=2, crop=[0, 0, 23, 30]),
    "x4-eta": dict(model="x4", prompt="a white cat", negative="blurry", steps=3, eta=0.6, noise_level=0,
                   crop=[0, 0, 16, 12]),
    "x4-other": dict(model="x4", prompt="", steps=4, guidance=1.0, noise_level=350, sampler="dpm++2m",
                     crop=[3, 2, 15, 19]),
    "x4-ancestral": dict(model="x4", prompt="a cat", steps=3, noise_level=100, sampler="euler-a", crop=[0, 0, 12, 20]),
    "pix2pix": dict(model="pix2pix", prompt="make it snowy", steps=4, batch=2, crop=[0, 0, 23, 50]),
    "pix2pix-ddim": dict(model="pix2pix", prompt="make it snowy", negative="dull", steps=4, guidance=4.0,
                         image_guidance=1.0, sampler="ddim", eta=0.3, crop=[0, 0, 20, 36]),
    "pix2pix-unguided": dict(model="pix2pix", prompt="make it snowy", steps=3, image_guidance=0.9, sampler="ddim",
                             crop=[0, 0, 20, 36]),
}
# Of the picture at 68 x 72 pixels; words of one letter are the first tokens of every vocabulary.
WINDOWS = dict(model="x4", prompt="a b", steps=2, size=[68, 72], side=64)
SIZES = {"bicubic-tall": (16, 72), "bicubic-low": (20, 20), "bicubic-large": (50, 64), "bicubic-line": (1, 61)}


@functools.cache
def modules_of(name):
    return {component: fill(component, module) for component, module in FAMILIES[name].modules().items()}


def pipeline(name, sampler):
    family, modules = FAMILIES[name], modules_of(name)
    scheduler, _ = family.scheduler
    config = family.published
    scheduler = scheduler.from_config(config) if sampler is None else SAMPLERS[sampler].from_config(config)
    pad = "!" if "text_encoder" in family.open_clip else "<|endoftext|>"
    parts = modules | others(family) | {"scheduler": scheduler, "tokenizer": tokenizer(pad)}
    if name == "pix2pix":
        parts |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe = family.pipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def shown():
    return Image.open(os.path.join(HERE, "controlnet", "picture.png")).convert("RGB")


def windows(whole, side):
    """Where they start, and how much each of their pixels counts: a quarter overlaps at least."""
    side, overlap = min(side, whole), min(side, whole) // 4
    count = 1 if side == whole else -(-(whole - overlap) // (side - overlap))
    ramp = torch.arange(side) / overlap
    up, down = [torch.clamp(edge, max=1) for edge in (ramp, side / overlap - ramp)]
    return [(i * (whole - side) // max(count - 1, 1),
             torch.minimum(up if i else torch.ones(side), down if i + 1 < count else torch.ones(side)))
            for i in range(count)]


def in_windows(forward, side, sample, *args, **kwargs):
    """MultiDiffusion (arXiv 2302.08113): the weighted mean of what a UNet predicts of each window."""
    made, total = 0, 0
    for y, rows in windows(sample.shape[2], side):
        for x, columns in windows(sample.shape[3], side):
            part = forward(sample[:, :, y:y + len(rows), x:x + len(columns)], *args, **kwargs)[0]
            weights = rows[:, None] * columns
            place = (x, sample.shape[3] - x - len(columns), y, sample.shape[2] - y - len(rows))
            made = made + torch.nn.functional.pad(part * weights, place)
            total = total + torch.nn.functional.pad(weights, place)
    return (made / total,)


def draw(case, seed):
    pipe = pipeline(case["model"], case.get("sampler"))
    if "side" in case:
        pipe.unet.forward = functools.partial(in_windows, pipe.unet.forward, case["side"])
    image = shown().crop(case["crop"]) if "crop" in case else shown().resize(case["size"], Image.BICUBIC)
    more = {"eta": case.get("eta", 0.0), "negative_prompt": case.get("negative")}
    names = {"guidance_scale": "guidance", "noise_level": "noise_level", "image_guidance_scale": "image_guidance"}
    more |= {theirs: case[ours] for theirs, ours in names.items() if ours in case}
    made = pipe(case["prompt"], image=image, num_inference_steps=case["steps"], output_type="latent",
                generator=torch.Generator().manual_seed(seed), **more).images
    pipe.unet.__dict__.pop("forward", None)
    return made


def tiled():
    pipe = StableDiffusionPipeline.from_pretrained(DEMO, safety_checker=None, local_files_only=True).to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    for index in range(2):
        pictures = []
        for tiles in (True, False):
            pipe.vae.enable_tiling() if tiles else pipe.vae.disable_tiling()
            pictures += pipe("a red circle", height=144, width=128, num_inference_steps=2, guidance_scale=1.0,
                             generator=torch.Generator().manual_seed(7 + index)).images
        pictures[0].save(os.path.join(OUT, f"tiled-{index}.png"))
        apart = np.abs(np.array(pictures[0]).astype(int) - np.array(pictures[1]))
        print("in tiles", pictures[0].size, "differs by", apart.max(), "and on average by", apart.mean())


def main():
    os.makedirs(OUT, exist_ok=True)
    tensors = {}
    for name, case in CASES.items():
        tensors[name] = torch.cat([draw(case, 7 + i) for i in range(case.get("batch", 1))])
        print("drew", name, tuple(tensors[name].shape), float(tensors[name].std()))
    tensors["x4-windows"] = draw(WINDOWS, 7)
    whole = draw({name: value for name, value in WINDOWS.items() if name != "side"}, 7)
    apart = (tensors["x4-windows"] - whole).norm() / whole.norm()
    print("in windows", tuple(whole.shape), "differs by", float(apart))
    picture = shown()
    for name, size in SIZES.items():
        tensors[name] = torch.from_numpy(np.array(picture.resize(size, Image.BICUBIC)).astype(np.float32) / 255)
    save_file(tidy(tensors), os.path.join(OUT, "pictures.safetensors"))
    with open(os.path.join(OUT, "pictures.json"), "w") as file:
        json.dump(CASES, file, indent=1, sort_keys=True)
    tiled()


if __name__ == "__main__":
    main()
