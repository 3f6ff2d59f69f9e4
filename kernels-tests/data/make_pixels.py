#!/usr/bin/env python3
"""Write what kernels-tests/pixels.rs needs to know of diffusion in pixel space.

    pip install torch diffusers safetensors
    python make_pixels.py                            # writes beside itself, into pixels/

Three small networks, every parameter moved off its initial value: one of ddpm-cifar10-32's form, one of the class's
defaults (heads of 8 channels) that is told a class, and one without attention in its middle. For each a model folder with
    unet.inputs.safetensors, unet.outputs.safetensors   a pass
    pictures.safetensors                                 the state after the last step of diffusers' DDPMPipeline and
                                                         DDIMPipeline, NCHW, by the names of pictures.json
"""
import json
import os

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import save_file

from make_reference import perturb

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "pixels")
NARROW = dict(sample_size=16, norm_num_groups=8, block_out_channels=(16, 32))
MODELS = {
    "cifar": dict(NARROW, layers_per_block=2, attention_head_dim=None, norm_eps=1e-6, downsample_padding=0,
                  flip_sin_to_cos=False, freq_shift=1, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                  up_block_types=("AttnUpBlock2D", "UpBlock2D")),
    "classes": dict(NARROW, layers_per_block=1, attention_head_dim=8, num_class_embeds=5,
                    down_block_types=("AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D")),
    "plain": dict(NARROW, layers_per_block=1, add_attention=False, down_block_types=("DownBlock2D",) * 2,
                  up_block_types=("UpBlock2D",) * 2),
}
SCHEDULE = dict(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=True)
PICTURES = {
    "ddpm": dict(pipeline="DDPMPipeline", steps=6, variance_type="fixed_large"),
    "ddpm-small": dict(pipeline="DDPMPipeline", steps=5, variance_type="fixed_small"),
    "ddim": dict(pipeline="DDIMPipeline", steps=5, variance_type="fixed_large"),
    "ddim-eta": dict(pipeline="DDIMPipeline", steps=4, variance_type="fixed_large", eta=0.5),
}
CLASS = 3


def draw(unet, case, batch):
    """The pipeline's loop with the class told, and its state instead of a clamped picture."""
    ddim = case["pipeline"] == "DDIMPipeline"
    schedule = dict(SCHEDULE, variance_type=case["variance_type"])
    scheduler = DDIMScheduler(**SCHEDULE) if ddim else DDPMScheduler(**schedule)
    labels = {} if unet.config.num_class_embeds is None else {"class_labels": torch.tensor([CLASS])}
    states = []
    for seed in range(7, 7 + batch):
        generator = torch.Generator().manual_seed(seed)
        image = torch.randn(1, 3, 16, 16, generator=generator)
        scheduler.set_timesteps(case["steps"])
        for t in scheduler.timesteps:
            output = unet(image, t, **labels).sample
            more = dict(eta=case.get("eta", 0.0), use_clipped_model_output=None) if ddim else {}
            image = scheduler.step(output, t, image, generator=generator, **more).prev_sample
        states.append(image)
    return torch.cat(states)


def check_loop(unet):
    """The loop is the pipelines' own, where those can be called."""
    for name, pipeline, scheduler in (("ddpm", DDPMPipeline, DDPMScheduler(**SCHEDULE, variance_type="fixed_large")),
                                      ("ddim", DDIMPipeline, DDIMScheduler(**SCHEDULE))):
        pipe = pipeline(unet=unet, scheduler=scheduler)
        pipe.set_progress_bar_config(disable=True)
        steps = PICTURES[name]["steps"]
        image = pipe(generator=torch.Generator().manual_seed(7), num_inference_steps=steps, output_type="np").images
        own = (draw(unet, PICTURES[name], 1) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        assert abs(own - image).max() < 1e-6, name


@torch.no_grad()
def main():
    generator = torch.Generator().manual_seed(0)
    for name, config in MODELS.items():
        folder = os.path.join(OUT, name)
        unet = perturb(UNet2DModel(**config), generator)
        unet.save_pretrained(os.path.join(folder, "unet"))
        os.makedirs(os.path.join(folder, "scheduler"), exist_ok=True)
        with open(os.path.join(folder, "model_index.json"), "w") as file:
            json.dump({"_class_name": "DDPMPipeline"}, file)
        scheduler = dict(SCHEDULE, _class_name="DDPMScheduler", variance_type="fixed_large")
        with open(os.path.join(folder, "scheduler", "scheduler_config.json"), "w") as file:
            json.dump(scheduler, file, indent=1)
        inputs = {"sample": torch.randn(2, 3, 10, 14, generator=generator), "timestep": torch.tensor([801, 3])}
        if config.get("num_class_embeds"):
            inputs["class_labels"] = torch.tensor([4, 0])
        else:
            check_loop(unet)
        save_file(inputs, os.path.join(folder, "unet.inputs.safetensors"))
        save_file({"sample": unet(**inputs).sample.contiguous()}, os.path.join(folder, "unet.outputs.safetensors"))
        states = {picture: draw(unet, case, 2).contiguous() for picture, case in PICTURES.items()}
        save_file(states, os.path.join(folder, "pictures.safetensors"))
    with open(os.path.join(OUT, "pictures.json"), "w") as file:
        json.dump(PICTURES, file, indent=1)


if __name__ == "__main__":
    main()
