#!/usr/bin/env python3
"""Write what kernels-tests/unclip.rs needs to know of variations of a picture.

    pip install torch diffusers transformers accelerate safetensors pillow
    python make_unclip.py                            # writes beside itself, into unclip/

Two small models, their weights functions of their names alone (make_single_file.py): "h" with an encoder of OpenCLIP's
activation and heads, "l" with OpenAI's and a picture that is not a whole number of patches. What is kept:
    unclip/models.json             the models' configurations, with every tensor's shape
    unclip/pictures.json           what diffusers' StableUnCLIPImg2ImgPipeline was called with
    unclip/pictures.safetensors    its latents after the last step; for each model what its encoder makes of pixels, what
                                   its UNet makes of a vector, and what CLIPImageProcessor makes of pictures
    unclip/resized.json            sizes, and the SHA-256 of what Pillow makes of a picture there
"""
import hashlib
import json
import os

import numpy as np
import torch
from diffusers import (AutoencoderKL, DDIMScheduler, DDPMScheduler, EulerAncestralDiscreteScheduler,
                       StableUnCLIPImg2ImgPipeline, UNet2DConditionModel)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from PIL import Image
from safetensors.torch import save_file
from transformers import (CLIPImageProcessor, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection)

from make_single_file import BETAS, FAMILIES, HERE, canonical, fill, text_config, tidy, tokenizer, unet_config, vae_config

OUT = os.path.join(HERE, "unclip")
NOISING = dict(beta_schedule="squaredcos_cap_v2", num_train_timesteps=1000)
SD2 = dict(use_linear_projection=True, class_embed_type="projection")
MODELS = {
    "h": dict(vision=dict(hidden_size=80, intermediate_size=144, num_hidden_layers=3, num_attention_heads=5, image_size=28,
                          patch_size=7, projection_dim=48, hidden_act="gelu"),
              processor=dict(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}), width=96),
    "l": dict(vision=dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=32,
                          patch_size=5, projection_dim=40, hidden_act="quick_gelu"),
              processor=dict(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32},
                             image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]), width=80),
}
DDIM = (DDIMScheduler, BETAS | dict(clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"))
EULER_A = (EulerAncestralDiscreteScheduler, BETAS | dict(prediction_type="v_prediction"))
CASES = {
    "h-plain": dict(model="h", scheduler=DDIM, steps=4, guidance=10.0),
    "h-noisy": dict(model="h", scheduler=DDIM, steps=5, guidance=6.0, noise_level=700, prompt="a cat", batch=2),
    "h-unguided": dict(model="h", scheduler=DDIM, steps=3, guidance=1.0, eta=0.5, noise_level=20),
    "l-negative": dict(model="l", scheduler=EULER_A, steps=4, guidance=4.0, prompt="a cat", negative="blurry, dark",
                       size=(40, 24), batch=2),
}
RESIZED = [((38, 45), (28, 33)), ((38, 45), (224, 265)), ((45, 38), (45, 20)), ((200, 3), (60, 5)), ((3, 200), (1, 7)),
           ((1, 1), (9, 4)), ((64, 64), (63, 65)), ((97, 31), (13, 31)), ((17, 400), (224, 28))]


def picture(width=38, height=45):
    """kernels-tests/unclip.rs makes the same."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return Image.fromarray(((x * x * 7 + y * 11 * (c + 1) + x * y * (c + 2)) % 256).astype(np.uint8))


def modules(name):
    model = MODELS[name]
    width = model["vision"]["projection_dim"]
    unet = unet_config((32, 64, 64, 64), 128, 8, 1, [1, 1, 1, 0], 4, **SD2,
                       projection_class_embeddings_input_dim=model["width"])
    made = {"text_encoder": CLIPTextModel(text_config(128, 2, "gelu")), "unet": UNet2DConditionModel(**unet),
            "vae": AutoencoderKL(**vae_config((32, 64, 64), 1, 0.18215)),
            "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**model["vision"])),
            "image_normalizer": StableUnCLIPImageNormalizer(width)}
    made = {component: fill(component, module) for component, module in made.items()}
    with torch.no_grad():
        # A deviation of 1, give or take what its name gives.
        made["image_normalizer"].std.add_(1)
    return made


def kept(made):
    configs = {}
    for component, module in made.items():
        config = json.loads(module.config.to_json_string()) if hasattr(module.config, "to_json_string") else dict(module.config)
        if component in ("text_encoder", "image_encoder"):
            config["architectures"] = [type(module).__name__]
        else:
            config["_class_name"] = type(module).__name__
        tensors = {canonical(component, n): list(p.shape) for n, p in module.named_parameters()}
        configs[component] = {"config": {k: v for k, v in config.items() if k != "_use_default_values"}, "tensors": tensors}
    return configs


def draw(case, made, processor):
    scheduler, config = case["scheduler"]
    pipeline = StableUnCLIPImg2ImgPipeline(
        feature_extractor=processor, image_noising_scheduler=DDPMScheduler(**NOISING), tokenizer=tokenizer("!"),
        scheduler=scheduler(**config), **made)
    pipeline.set_progress_bar_config(disable=True)
    width, height = case.get("size", (32, 32))
    # A picture is what its own seed alone draws.
    images = [pipeline(image=picture(), prompt=case.get("prompt"), negative_prompt=case.get("negative"), width=width,
                       height=height, num_inference_steps=case["steps"], guidance_scale=case["guidance"],
                       eta=case.get("eta", 0.0), noise_level=case.get("noise_level", 0), output_type="latent",
                       generator=torch.Generator().manual_seed(7 + i)).images for i in range(case.get("batch", 1))]
    return torch.cat(images)


@torch.no_grad()
def main():
    os.makedirs(OUT, exist_ok=True)
    g = torch.Generator().manual_seed(3)
    tensors, models = {}, {}
    for name, model in MODELS.items():
        made, processor = modules(name), CLIPImageProcessor(**model["processor"])
        models[name] = {"components": kept(made), "processor": model["processor"], "noising": NOISING}
        side = model["vision"]["image_size"]
        pixels = torch.randn((2, 3, side, side), generator=g)
        out = made["image_encoder"](pixels)
        # Large enough for groups of a dozen values at the lowest level: two of them are 1 and -1 whatever rounding does.
        inputs = {"sample": torch.randn((2, 4, 13, 18), generator=g), "timestep": torch.tensor([801, 41]),
                  "encoder_hidden_states": torch.randn((2, 5, 128), generator=g),
                  "class_labels": torch.randn((2, model["width"]), generator=g)}
        tensors |= {f"{name}.image-encoder.in.pixel_values": pixels,
                    f"{name}.image-encoder.out.image_embeds": out.image_embeds,
                    f"{name}.image-encoder.out.last_hidden_state": out.last_hidden_state,
                    f"{name}.unet.out.sample": made["unet"](**inputs).sample}
        tensors |= {f"{name}.unet.in.{key}": value for key, value in inputs.items()}
        for width, height in [(38, 45), (90, 31), (20, 20)]:
            tensors[f"{name}.pixels.{width}x{height}"] = processor(picture(width, height), return_tensors="pt").pixel_values
        for picture_name, case in CASES.items():
            if case["model"] == name:
                tensors[picture_name] = draw(case, made, processor)
                print(picture_name, float(tensors[picture_name].abs().max()), flush=True)
    save_file(tidy(tensors), os.path.join(OUT, "pictures.safetensors"))
    cases = {}
    for name, case in CASES.items():
        scheduler, config = case["scheduler"]
        cases[name] = case | {"scheduler": config | {"_class_name": scheduler.__name__}}
    resized = []
    for (width, height), to in RESIZED:
        for kind, resample in [("lanczos", Image.LANCZOS), ("bicubic", Image.BICUBIC)]:
            rgb = picture(width, height).resize(to, resample).tobytes()
            resized.append([kind, [width, height], to, hashlib.sha256(rgb).hexdigest()])
    for file, value in [("models", models), ("pictures", cases)]:
        with open(os.path.join(OUT, f"{file}.json"), "w") as f:
            json.dump(value, f, separators=(",", ":"), default=list)
            f.write("\n")
    with open(os.path.join(OUT, "resized.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(row) for row in resized) + "\n]\n")


if __name__ == "__main__":
    main()
