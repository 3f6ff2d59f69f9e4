#!/usr/bin/env python3
"""Write what kernels-tests/refiner.rs needs to know of pictures that begin with a picture, and of SDXL's refiner.

    pip install torch diffusers transformers accelerate safetensors
    python make_refiner.py                           # writes beside itself, into refiner/

The models are the small ones of make_single_file.py, their weights functions of their names alone. What is kept:
    refiner/picture.png            what is started from
    refiner/pictures.json          what diffusers' pipelines were called with
    refiner/pictures.safetensors   their latents after the last step: of diffusers' ..Img2ImgPipeline, and of the base
                                   model and its refiner one after the other ("ensemble of expert denoisers")
"""
import functools
import json
import os

import numpy as np
import torch
from diffusers import (DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler,
                       HeunDiscreteScheduler, LMSDiscreteScheduler, PNDMScheduler, StableDiffusionImg2ImgPipeline,
                       StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UniPCMultistepScheduler)
from PIL import Image
from safetensors.torch import save_file

from make_single_file import FAMILIES, HERE, fill, tidy, tokenizer

OUT = os.path.join(HERE, "refiner")
BETAS = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
EULER = (EulerDiscreteScheduler, BETAS | dict(timestep_spacing="leading"))
EULER_A = (EulerAncestralDiscreteScheduler, BETAS)
DDIM = (DDIMScheduler, BETAS | dict(clip_sample=False, set_alpha_to_one=False))
DPM = (DPMSolverMultistepScheduler, BETAS)
DPM_SDE = (DPMSolverMultistepScheduler, BETAS | dict(algorithm_type="sde-dpmsolver++"))
HEUN = (HeunDiscreteScheduler, BETAS)
LMS = (LMSDiscreteScheduler, BETAS)
UNIPC = (UniPCMultistepScheduler, BETAS)
PNDM = (PNDMScheduler, BETAS | dict(skip_prk_steps=True, set_alpha_to_one=False))
CASES = {
    # A picture to start from.
    "sdxl-refiner-euler": dict(model="sdxl-refiner", scheduler=EULER, steps=10, strength=0.5),
    "sdxl-refiner-ddim-eta": dict(model="sdxl-refiner", scheduler=DDIM, steps=10, strength=0.3, eta=0.6, batch=2),
    "sdxl-refiner-dpm": dict(model="sdxl-refiner", scheduler=DPM, steps=9, strength=0.7, negative="blurry"),
    "sdxl-refiner-plain": dict(model="sdxl-refiner", scheduler=EULER_A, steps=6, strength=0.5, guidance=1.0),
    "sdxl-refiner-heun": dict(model="sdxl-refiner", scheduler=HEUN, steps=6, strength=0.5),
    "sdxl-euler": dict(model="sdxl", scheduler=EULER, steps=8, strength=0.4),
    "sd1-pndm": dict(model="sd1", scheduler=PNDM, steps=8, strength=0.8),
    "sd1-lms": dict(model="sd1", scheduler=LMS, steps=9, strength=0.6, batch=2),
    "sd1-all": dict(model="sd1", scheduler=EULER_A, steps=4, strength=1.0),
    "sd1-unipc": dict(model="sd1", scheduler=UNIPC, steps=8, strength=0.65),
    # The base model and its refiner.
    "both-euler": dict(scheduler=EULER, steps=10, start=0.8),
    "both-ddim-eta": dict(scheduler=DDIM, steps=8, start=0.6, eta=0.5, batch=2),
    "both-dpm": dict(scheduler=DPM, steps=10, start=0.5),
    "both-dpm-sde": dict(scheduler=DPM_SDE, steps=8, start=0.7),
    "both-heun": dict(scheduler=HEUN, steps=6, start=0.6),
}


def picture():
    y, x = np.mgrid[0:45, 0:38]
    rgb = np.stack([x * 6, y * 5, 128 + 100 * np.sin(x / 5) * np.cos(y / 7)], axis=-1)
    rgb[10:25, 8:30] = (200, 40, 90)
    return Image.fromarray(rgb.astype(np.uint8))


@functools.cache
def modules(family):
    return {component: fill(component, module) for component, module in FAMILIES[family].modules().items()}


def pipeline(cls, family, case):
    scheduler, config = case["scheduler"]
    parts = modules(family) | {"scheduler": scheduler(**config)}
    if family == "sd1":
        parts |= dict(tokenizer=tokenizer("<|endoftext|>"), safety_checker=None, feature_extractor=None,
                      requires_safety_checker=False)
    elif family == "sdxl":
        parts |= dict(tokenizer=tokenizer("<|endoftext|>"), tokenizer_2=tokenizer("!"), add_watermarker=False)
    else:
        parts |= dict(tokenizer=None, text_encoder=None, tokenizer_2=tokenizer("!"), add_watermarker=False,
                      requires_aesthetics_score=True, force_zeros_for_empty_prompt=False)
    made = cls(**parts)
    made.set_progress_bar_config(disable=True)
    return made


def draw(case):
    batch = case.get("batch", 1)
    call = dict(prompt="a photo of a cat", negative_prompt=case.get("negative"), num_inference_steps=case["steps"],
                guidance_scale=case.get("guidance", 5.0), eta=case.get("eta", 0.0), output_type="latent",
                num_images_per_prompt=batch, generator=[torch.Generator().manual_seed(7 + i) for i in range(batch)])
    if "model" in case:
        cls = StableDiffusionImg2ImgPipeline if case["model"] == "sd1" else StableDiffusionXLImg2ImgPipeline
        return pipeline(cls, case["model"], case)(image=picture(), strength=case["strength"], **call).images
    latents = pipeline(StableDiffusionXLPipeline, "sdxl", case)(height=40, width=32, denoising_end=case["start"], **call)
    refiner = pipeline(StableDiffusionXLImg2ImgPipeline, "sdxl-refiner", case)
    return refiner(image=latents.images, denoising_start=case["start"], **call).images


def main():
    os.makedirs(OUT, exist_ok=True)
    picture().save(os.path.join(OUT, "picture.png"))
    tensors, kept = {}, {}
    for name, case in CASES.items():
        tensors[name] = draw(case)
        scheduler, config = case["scheduler"]
        kept[name] = case | {"scheduler": config | {"_class_name": scheduler.__name__}}
        print(name, tuple(tensors[name].shape), float(tensors[name].abs().max()))
    save_file(tidy(tensors), os.path.join(OUT, "pictures.safetensors"))
    rows = (f"{json.dumps(name)}: {json.dumps(case)}" for name, case in kept.items())
    with open(os.path.join(OUT, "pictures.json"), "w") as f:
        f.write("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
