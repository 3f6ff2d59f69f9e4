#!/usr/bin/env python3
"""Write what kernels-tests/editing.rs needs to know of masks, second runs and variations.

    pip install torch diffusers transformers accelerate safetensors
    python make_editing.py                           # writes beside itself, into editing/

The models are the small ones of make_single_file.py, their weights functions of their names alone. What is kept:
    editing/picture.png, mask.png    what is edited, and what of it
    editing/cases.json               what diffusers' pipelines were called with
    editing/cases.safetensors        their latents after the last step; `NAME.picture`: their pictures;
                                     `blur.DEVIATION`: Pillow's GaussianBlur of the mask
"""
import json
import os

import numpy as np
import torch
from diffusers import (DPMSolverMultistepScheduler, KDPM2DiscreteScheduler, LCMScheduler, StableDiffusionImg2ImgPipeline,
                       StableDiffusionInpaintPipeline, StableDiffusionPipeline, StableDiffusionXLInpaintPipeline)
from diffusers.models import UNet2DConditionModel
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import save_file

from make_refiner import BETAS, DDIM, DPM, EULER, EULER_A, HEUN, PNDM, UNIPC, modules, picture
from make_single_file import FAMILIES, HERE, fill, tidy, tokenizer

OUT = os.path.join(HERE, "editing")
DPM2 = (KDPM2DiscreteScheduler, BETAS)
LCM = (LCMScheduler, BETAS)
DPM_SDE = (DPMSolverMultistepScheduler, BETAS | dict(algorithm_type="sde-dpmsolver++"))
SIZE = dict(height=44, width=36)
CASES = {
    # A network that sees no mask.
    "sd1-euler": dict(model="sd1", scheduler=EULER, steps=6, strength=1.0),
    "sd1-ddim-eta": dict(model="sd1", scheduler=DDIM, steps=8, strength=0.6, eta=0.6),
    "sd1-heun": dict(model="sd1", scheduler=HEUN, steps=5, strength=0.8),
    "sd1-dpm2": dict(model="sd1", scheduler=DPM2, steps=5, strength=0.8),
    "sd1-dpm": dict(model="sd1", scheduler=DPM, steps=7, strength=1.0),
    "sd1-dpm-sde": dict(model="sd1", scheduler=DPM_SDE, steps=6, strength=0.7),
    "sd1-euler-a": dict(model="sd1", scheduler=EULER_A, steps=6, strength=1.0),
    "sd1-pndm": dict(model="sd1", scheduler=PNDM, steps=7, strength=0.8),
    "sd1-unipc": dict(model="sd1", scheduler=UNIPC, steps=6, strength=0.9),
    "sd1-lcm": dict(model="sd1", scheduler=LCM, steps=4, strength=1.0),
    "sd1-blur": dict(model="sd1", scheduler=DDIM, steps=4, strength=1.0, blur=2.5),
    "sd1-region": dict(model="sd1", scheduler=EULER, steps=4, strength=0.75, padding=3, height=32, width=40),
    "sdxl-euler": dict(model="sdxl", scheduler=EULER, steps=6, height=40, width=32),
    # Networks that see it.
    "sd1-inpaint-pndm": dict(model="sd1-inpaint", scheduler=PNDM, steps=6, strength=1.0),
    "sd1-inpaint-euler-a": dict(model="sd1-inpaint", scheduler=EULER_A, steps=6, strength=0.7),
    "sd1-inpaint-plain": dict(model="sd1-inpaint", scheduler=DDIM, steps=4, strength=1.0, guidance=1.0),
    "sd1-inpaint-region": dict(model="sd1-inpaint", scheduler=DDIM, steps=4, strength=1.0, padding=0, height=40, width=24),
    "sdxl-inpaint-euler": dict(model="sdxl-inpaint", scheduler=EULER, steps=6, height=40, width=32),
    # A second run.
    "latent": dict(model="sd1", scheduler=EULER, steps=5, hires="latent", scale=1.5, strength=0.7, height=32, width=40),
    "latent-heun": dict(model="sd1", scheduler=HEUN, steps=4, hires="latent", scale=1.3, strength=0.5, height=40, width=24),
    "lanczos": dict(model="sd1", scheduler=DDIM, steps=5, hires="lanczos", scale=1.5, strength=0.6, height=32, width=40),
    # Another seed's noise.
    "variation": dict(model="sd1", scheduler=DDIM, steps=4, variation=0.3, height=32, width=40),
    "variation-most": dict(model="sd1", scheduler=DDIM, steps=4, variation=0.9, height=32, width=40),
}


def mask():
    made = Image.new("L", (38, 45))
    draw = ImageDraw.Draw(made)
    draw.ellipse((7, 9, 24, 30), fill=255)
    draw.rectangle((20, 26, 30, 33), fill=160)
    draw.rectangle((9, 31, 14, 36), fill=90)
    return made


def parts_of(family):
    if not family.startswith("sdxl-inpaint"):
        return modules(family)
    unet = UNet2DConditionModel(**FAMILIES["sdxl"].unet | dict(in_channels=9))
    return modules("sdxl") | {"unet": fill("unet", unet)}


def pipeline(cls, case):
    scheduler, config = case["scheduler"]
    parts = parts_of(case["model"]) | {"scheduler": scheduler(**config)}
    if case["model"].startswith("sdxl"):
        parts |= dict(tokenizer=tokenizer("<|endoftext|>"), tokenizer_2=tokenizer("!"), add_watermarker=False)
    else:
        parts |= dict(tokenizer=tokenizer("<|endoftext|>"), safety_checker=None, feature_extractor=None,
                      requires_safety_checker=False)
    made = cls(**parts)
    made.set_progress_bar_config(disable=True)
    return made


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def slerp(val, low, high):
    """As the web UI's modules/rng.py has it, of [C, H, W]."""
    low_norm = low / torch.norm(low, dim=1, keepdim=True)
    high_norm = high / torch.norm(high, dim=1, keepdim=True)
    dot = (low_norm * high_norm).sum(1)
    omega = torch.acos(dot)
    so = torch.sin(omega)
    return ((torch.sin((1.0 - val) * omega) / so).unsqueeze(1) * low
            + (torch.sin(val * omega) / so).unsqueeze(1) * high)


def draw(case):
    call = dict(prompt="a photo of a cat", num_inference_steps=case["steps"], guidance_scale=case.get("guidance", 5.0))
    size = {side: case.get(side, SIZE[side]) for side in SIZE}
    if "variation" in case:
        shape = (4, size["height"] // 4, size["width"] // 4)
        noise = slerp(case["variation"], *(torch.randn(shape, generator=seeded(seed)) for seed in (7, 11)))
        return pipeline(StableDiffusionPipeline, case)(latents=noise[None], output_type="latent", **size, **call).images, None
    if "hires" in case:
        text = pipeline(StableDiffusionPipeline, case)
        longer = [int(size[side] * case["scale"]) // 4 * 4 for side in SIZE]
        if case["hires"] == "latent":
            first = text(generator=seeded(), output_type="latent", **size, **call).images
            image = torch.nn.functional.interpolate(first, size=[side // 4 for side in longer], mode="bilinear")
        else:
            first = text(generator=seeded(), output_type="pil", **size, **call).images[0]
            image = first.resize(longer[::-1], Image.LANCZOS)
        again = pipeline(StableDiffusionImg2ImgPipeline, case)
        return again(image=image, strength=case["strength"], generator=seeded(), output_type="latent", **call).images, None
    cls = StableDiffusionXLInpaintPipeline if case["model"].startswith("sdxl") else StableDiffusionInpaintPipeline
    made = pipeline(cls, case)
    marks = made.mask_processor.blur(mask(), case["blur"]) if "blur" in case else mask()
    more = {key: case[key] for key in ["strength", "eta"] if key in case}
    if "padding" in case:
        more["padding_mask_crop"] = case["padding"]
    results = []
    for kind in ["latent", "pil"]:
        if kind == "pil" and "padding" not in case:
            results.append(None)
            continue
        # With a region, diffusers decodes whatever is asked for: the latents are taken on their way.
        caught = []
        decode = made.vae.decode
        made.vae.decode = lambda z, *args, **kwargs: (caught.append(z), decode(z, *args, **kwargs))[1]
        image = made(image=picture(), mask_image=marks, generator=seeded(), output_type="pil" if "padding" in case else kind,
                     **size, **call, **more).images
        made.vae.decode = decode
        results.append(caught[0] * made.vae.config.scaling_factor if kind == "latent" and caught else image)
    latents, pictures = results
    return latents, None if pictures is None else torch.tensor(np.array(pictures[0])).float()


def main():
    os.makedirs(OUT, exist_ok=True)
    picture().save(os.path.join(OUT, "picture.png"))
    mask().save(os.path.join(OUT, "mask.png"))
    tensors, kept = {}, {}
    for name, case in CASES.items():
        latents, made = draw(case)
        tensors[name] = latents
        if made is not None:
            tensors[f"{name}.picture"] = made
        scheduler, config = case["scheduler"]
        kept[name] = case | {"scheduler": config | {"_class_name": scheduler.__name__}}
        print(name, tuple(latents.shape), float(latents.abs().max()))
    for deviation in [0.0, 0.4, 1.0, 2.5, 7.0, 40.0]:
        blurred = mask().filter(ImageFilter.GaussianBlur(deviation))
        tensors[f"blur.{deviation}"] = torch.tensor(np.array(blurred)).float()
    save_file(tidy(tensors), os.path.join(OUT, "cases.safetensors"))
    rows = (f"{json.dumps(name)}: {json.dumps(case)}" for name, case in kept.items())
    with open(os.path.join(OUT, "cases.json"), "w") as f:
        f.write("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
