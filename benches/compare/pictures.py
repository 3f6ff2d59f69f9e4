#!/usr/bin/env python3
"""Whole pictures: ours against diffusers, on the same weights, with the same steps, noise and guidance.

    pip install torch diffusers transformers
    cargo build --release
    python benches/compare/pictures.py --device vulkan --torch cuda             # the same card, f16
    python benches/compare/pictures.py --device vulkan --torch cuda --compile   # PyTorch compiled, max-autotune
    python benches/compare/pictures.py --device vulkan --torch cuda --model sdxl --size 1024
    python benches/compare/pictures.py --device cpu --torch cpu --size 256 --steps 4   # f32

The model has its family's full size and random weights that f16 holds. First the latents are compared, then both are timed
in turns, each picture by a process of its own whose files are in the page cache: a step (two rows through the UNet, and
the sampler), a picture from the start of the process to its end, and the most device memory.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

# `pytorch.py` and the folders beside this are not modules for the libraries to find.
sys.path.pop(0)

PROMPT, SEED, GUIDANCE = "a red circle above a blue square", 7, 7.5
TOKENIZER = pathlib.Path(__file__).parents[2] / "assets/demo-model/tokenizer"
# Largest relative errors of the latents: f16 rounds at every step of a random network.
LIMITS = {"cuda": 5e-2, "cpu": 1e-4}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--binary", default="target/release/ornstein")
parser.add_argument("--device", default="vulkan", help="ours")
parser.add_argument("--torch", default="cuda", choices=("cuda", "cpu"))
parser.add_argument("--compile", action="store_true", help="PyTorch's UNet compiled, and warmed up by a picture that is not timed")
parser.add_argument("--model", default="sd15", choices=("sd15", "sdxl"))
parser.add_argument("--size", type=int, default=512)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--theirs", type=pathlib.Path, help=argparse.SUPPRESS)
args = parser.parse_args()


def scheduler():
    from diffusers import DDIMScheduler

    return DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def autoencoder(**keys):
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, **blocks, **keys)


def text_config(**keys):
    from transformers import CLIPTextConfig

    # The ids of the tokenizer that is at hand.
    return CLIPTextConfig(bos_token_id=49406, eos_token_id=49407, **keys)


def sd15():
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    large = text_config(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, projection_dim=768)
    return StableDiffusionPipeline(
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
        vae=autoencoder(),
        text_encoder=CLIPTextModel(large),
        tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl():
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    large = text_config(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, projection_dim=768)
    giant = text_config(hidden_size=1280, intermediate_size=5120, num_attention_heads=20, num_hidden_layers=32, projection_dim=1280, hidden_act="gelu")
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[5, 10, 20],
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    return StableDiffusionXLPipeline(
        unet=unet,
        vae=autoencoder(scaling_factor=0.13025, force_upcast=True),
        text_encoder=CLIPTextModel(large),
        text_encoder_2=CLIPTextModelWithProjection(giant),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=scheduler(),
        add_watermarker=False,
    )


def theirs(folder):
    """One picture by diffusers: its facts as JSON on stdout, its latents beside the model."""
    import diffusers
    import torch
    import transformers
    from safetensors.torch import save_file

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    dtype = torch.float16 if args.torch == "cuda" else torch.float32
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=dtype).to(args.torch)
    pipeline.set_progress_bar_config(disable=True)
    if args.torch == "cuda":
        pipeline.unet.to(memory_format=torch.channels_last)
    if args.compile:
        pipeline.unet = torch.compile(pipeline.unet, mode="max-autotune", fullgraph=True)
    ends, latents = [], []

    def note(_pipeline, _step, _timestep, given):
        if args.torch == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
        latents[:] = [given["latents"]]
        return given

    def draw():
        ends.clear()
        noise = torch.Generator("cpu").manual_seed(SEED)
        pipeline(PROMPT, height=args.size, width=args.size, num_inference_steps=args.steps, guidance_scale=GUIDANCE, generator=noise, callback_on_step_end=note)

    if args.compile:
        draw()
    draw()
    save_file({"latents": latents[0].float().cpu().contiguous()}, folder / "theirs.safetensors")
    memory = torch.cuda.max_memory_allocated() if args.torch == "cuda" else 0
    step = (ends[-1] - ends[0]) / (len(ends) - 1)
    print(json.dumps({"step": step, "bytes": memory}))


def drawn_by_theirs(folder):
    command = [sys.executable, __file__, *sys.argv[1:], "--theirs", folder]
    start = time.perf_counter()
    found = json.loads(subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE).stdout)
    return {**found, "picture": time.perf_counter() - start}


def drawn_by_ours(folder, steps):
    dtype = "f16" if args.torch == "cuda" else "f32"
    command = [args.binary, "generate", PROMPT, "-m", folder, "--seed", SEED, "--guidance", GUIDANCE, "--sampler", "ddim", "--json"]
    command += ["--width", args.size, "--height", args.size, "--steps", steps, "--device", args.device, "--dtype", dtype]
    command += ["--save-latents", folder / "ours.safetensors", "--output", folder / "ours.png"]
    start = time.perf_counter()
    report = json.loads(subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE).stdout)
    return report, time.perf_counter() - start


def ours(folder):
    # What is done once for all steps falls out of the difference.
    few, _ = drawn_by_ours(folder, 2)
    report, picture = drawn_by_ours(folder, args.steps)
    step = (report["seconds"]["denoise"] - few["seconds"]["denoise"]) / (args.steps - 2)
    return {"step": step, "picture": picture, "bytes": report["peak_device_bytes"]}


def check(folder):
    from safetensors.torch import load_file

    mine, right = (load_file(folder / f"{side}.safetensors")["latents"] for side in ("ours", "theirs"))
    error = ((mine - right).norm() / right.norm()).item()
    print(f"our latents differ from diffusers' by {error:.1e}", flush=True)
    if not error < LIMITS[args.torch]:
        raise SystemExit("they are not the same picture, and not timed")


def main():
    import diffusers
    import torch

    card = torch.cuda.get_device_name() if args.torch == "cuda" else f"{len(os.sched_getaffinity(0))} cores"
    print(f"diffusers {diffusers.__version__}, PyTorch {torch.__version__} on {card}, ours on {args.device}")
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        {"sd15": sd15, "sdxl": sdxl}[args.model]().to(torch.float16).save_pretrained(folder)
        # The first of each also fills the page cache, and caches of kernels.
        drawn_by_theirs(folder), ours(folder)
        check(folder)
        rounds = [(ours(folder), drawn_by_theirs(folder)) for _ in range(args.rounds)]
    what = f"{args.model} {args.size}x{args.size}, {args.steps} steps"
    for key, unit, scale in (("step", "s", 1), ("picture", "s", 1), ("bytes", "GB", 1e9)):
        pairs = [(mine[key] / scale, other[key] / scale) for mine, other in rounds]
        if key == "bytes" and args.torch == "cpu" or key == "picture" and args.compile:
            continue
        mine, other = (statistics.median(side) for side in zip(*pairs))
        ratios = sorted(b / a for a, b in pairs)
        print(f"{what}: {key:<8} ours {mine:7.3f} {unit}  theirs {other:7.3f} {unit}  theirs / ours {statistics.median(ratios):5.2f}  [{ratios[0]:.2f}, {ratios[-1]:.2f}]")


if args.steps < 3:
    parser.error("--steps should be at least 3: a step's time is the difference of two pictures'")
theirs(args.theirs) if args.theirs else main()
