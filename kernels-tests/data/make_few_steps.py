#!/usr/bin/env python3
"""Write what kernels-tests/few_steps.rs needs to know of distilled models, which draw in a few steps.

    pip install torch diffusers transformers accelerate safetensors
    python make_few_steps.py                         # writes beside itself, into few_steps/

The model is the small SDXL of make_single_file.py, its weights functions of their names alone, with the schedules that the
distilled ones are published with: Turbo's, Lightning's, and those of LCM and TCD, as a LoRA and as a whole network; and, as
the same model shows them, with EDM's noise as Playground 2.5 has it, and with rescaled guidance. What is kept:
    few_steps/pictures.json         what diffusers' pipeline was called with
    few_steps/pictures.safetensors  its latents after the last step; and inputs and outputs of a pass of the network that is
                                    told its guidance
"""
import json
import os

import torch
from diffusers import (EDMDPMSolverMultistepScheduler, EDMEulerScheduler, EulerAncestralDiscreteScheduler,
                       EulerDiscreteScheduler, LCMScheduler, StableDiffusionXLPipeline, TCDScheduler, UNet2DConditionModel)
from safetensors.torch import save_file

from make_single_file import FAMILIES, HERE, fill, tidy, tokenizer

OUT = os.path.join(HERE, "few_steps")
SDXL = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
TURBO = (EulerAncestralDiscreteScheduler, SDXL | dict(timestep_spacing="trailing"))
LIGHTNING = (EulerDiscreteScheduler, SDXL | dict(timestep_spacing="trailing"))
# One step of Lightning predicts the picture itself.
LIGHTNING_1 = (EulerDiscreteScheduler, SDXL | dict(timestep_spacing="trailing", prediction_type="sample"))
LCM = (LCMScheduler, SDXL | dict(original_inference_steps=50, timestep_spacing="leading"))
TCD = (TCDScheduler, SDXL | dict(original_inference_steps=50))
EDM_EULER = (EDMEulerScheduler, dict(sigma_max=60.0))
# Playground 2.5's.
EDM_MULTI = (EDMDPMSolverMultistepScheduler, dict(sigma_data=0.5, sigma_max=80.0, sigma_min=0.002, rho=7.0))
ZERO_SNR = (EulerDiscreteScheduler, SDXL | dict(timestep_spacing="trailing", rescale_betas_zero_snr=True,
                                                prediction_type="v_prediction"))
DISTILLED = dict(time_cond_proj_dim=256)
CASES = {
    "turbo-1": dict(scheduler=TURBO, steps=1, guidance=0.0),
    "turbo-4": dict(scheduler=TURBO, steps=4, guidance=0.0),
    "lightning-1": dict(scheduler=LIGHTNING_1, steps=1, guidance=0.0),
    "lightning-2": dict(scheduler=LIGHTNING, steps=2, guidance=0.0),
    "lightning-4": dict(scheduler=LIGHTNING, steps=4, guidance=1.0),
    "lcm-4": dict(scheduler=LCM, steps=4, guidance=1.0),
    "lcm-guided": dict(scheduler=LCM, steps=3, guidance=1.5),
    "lcm-whole-4": dict(scheduler=LCM, steps=4, guidance=8.0, unet=DISTILLED),
    "lcm-whole-1": dict(scheduler=LCM, steps=1, guidance=1.0, unet=DISTILLED),
    "tcd-4": dict(scheduler=TCD, steps=4, guidance=0.0),
    "tcd-eta": dict(scheduler=TCD, steps=4, guidance=0.0, eta=0.3),
    "tcd-eta-1": dict(scheduler=TCD, steps=2, guidance=1.0, eta=1.0),
    "edm-multistep": dict(scheduler=EDM_MULTI, steps=4, guidance=3.0),
    "edm-euler": dict(scheduler=EDM_EULER, steps=3, guidance=1.0),
    "rescaled": dict(scheduler=ZERO_SNR, steps=4, guidance=7.5, guidance_rescale=0.7),
    "rescaled-edm": dict(scheduler=EDM_MULTI, steps=3, guidance=5.0, guidance_rescale=1.0),
}


def modules(unet):
    family = FAMILIES["sdxl"]
    made = {name: cls(config) for name, (cls, config) in family.texts.items()}
    made |= {"unet": UNet2DConditionModel(**family.unet, **unet), "vae": family.modules()["vae"]}
    return {component: fill(component, module) for component, module in made.items()}


def draw(case):
    scheduler, config = case["scheduler"]
    pipeline = StableDiffusionXLPipeline(**modules(case.get("unet", {})), scheduler=scheduler(**config),
                                         tokenizer=tokenizer("<|endoftext|>"), tokenizer_2=tokenizer("!"),
                                         add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline("a photo of a cat", height=40, width=32, num_inference_steps=case["steps"],
                    guidance_scale=case["guidance"], eta=case.get("eta", 0.0), guidance_rescale=case.get("guidance_rescale", 0.0),
                    generator=torch.Generator().manual_seed(7), output_type="latent").images


def told(g):
    """A pass of the network that is told its guidance, of another one in each row."""
    unet = modules(DISTILLED)["unet"]
    c = unet.config
    added = {"text_embeds": torch.randn((2, c.projection_class_embeddings_input_dim - 6 * 256), generator=g),
             "time_ids": torch.tensor([[1024.0, 768.0, 0.0, 16.0, 1024.0, 1024.0]] * 2)}
    inputs = {"sample": torch.randn((2, c.in_channels, 6, 7), generator=g), "timestep": torch.tensor([999, 259]),
              "encoder_hidden_states": torch.randn((2, 5, c.cross_attention_dim), generator=g)}
    condition = StableDiffusionXLPipeline.get_guidance_scale_embedding(None, torch.tensor([7.0, 0.5]), 256)
    with torch.no_grad():
        sample = unet(*inputs.values(), timestep_cond=condition, added_cond_kwargs=added).sample
    inputs |= added | {"timestep_cond": condition}
    return {f"unet.in.{name}": tensor for name, tensor in inputs.items()} | {"unet.out.sample": sample}


def main():
    os.makedirs(OUT, exist_ok=True)
    tensors = told(torch.Generator().manual_seed(1))
    kept = {}
    for name, case in CASES.items():
        tensors[name] = draw(case)
        scheduler, config = case["scheduler"]
        kept[name] = {"unet": {}} | case | {"scheduler": config | {"_class_name": scheduler.__name__}}
    save_file(tidy(tensors), os.path.join(OUT, "pictures.safetensors"))
    rows = (f"{json.dumps(name)}: {json.dumps(case)}" for name, case in kept.items())
    with open(os.path.join(OUT, "pictures.json"), "w") as f:
        f.write("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
