#!/usr/bin/env python3
"""Pictures on the CPU: ours against stable-diffusion.cpp, on all cores that this process may use.

    pip install torch diffusers transformers accelerate safetensors
    CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON -DSD_WEBP=OFF -DSD_WEBM=OFF" pip install stable-diffusion-cpp-python
    cargo build --release
    python kernels-tests/data/make_single_file.py --full sd15 sd15.safetensors
    python benches/compare/cpu/sdcpp.py sd15.safetensors

Both open the same file, Stable Diffusion 1.5 at full size with random weights in f16, and draw the same prompt by the same
noise (PyTorch's CUDA generator) and schedule (Euler, evenly spaced timesteps), without guidance. First the pictures are
compared; then both draw in turns, and the time of the VAE's decoder and of a pass of the UNet, the mean of those after a
first one, is taken from each. Theirs
has several settings: each is tried once, and what was the fastest for the UNet and for the decoder counts. Reading weights
and encoding the prompt do not count.
"""
import argparse
import ctypes
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import stable_diffusion_cpp as sd
from PIL import Image, ImageChops, ImageStat

SETTINGS = {
    "as stored": {},
    "flash attention": dict(flash_attn=True),
    "direct convolutions": dict(diffusion_conv_direct=True, vae_conv_direct=True),
    "f32": dict(wtype="f32"),
}
PROMPT, SEED, STEPS = "a photo of a cat", 7, 4
# Mean difference of pixels in 255ths. Theirs rounds activations to f16 in every product; another seed's differs by dozens.
LIMIT = 2.0

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("checkpoint")
parser.add_argument("--binary", default="target/release/ornstein")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--pixels", type=int, action="append", help="sides of the pictures [default: 256 and 512]")
parser.add_argument("--draw", nargs=4, help=argparse.SUPPRESS)
parser.add_argument("--setting", action="append", choices=SETTINGS, help="try only this one")
args = parser.parse_args()
cores = len(os.sched_getaffinity(0))
environment = dict(os.environ, RAYON_NUM_THREADS=str(cores))


def draw_theirs(setting, pixels, seed, file):
    """Writes the picture, and prints the seconds of a pass of the UNet and of the decoder."""
    log, marks = [], []
    keep = sd.sd_log_callback(lambda _level, text, _data: log.append(text.decode(errors="replace")))
    sd.sd_set_log_callback(keep, ctypes.c_void_p(0))
    model = sd.StableDiffusion(model_path=args.checkpoint, n_threads=cores, rng_type="cuda", sampler_rng_type="cuda",
                               verbose=False, **SETTINGS[setting])
    [picture] = model.generate_image(prompt=PROMPT, width=int(pixels), height=int(pixels), cfg_scale=1.0, sample_steps=STEPS,
                                     sample_method="euler", scheduler="discrete", seed=int(seed),
                                     progress_callback=lambda *_: marks.append(time.perf_counter()))
    picture.convert("RGB").save(file)
    decoder = re.search(r"decode_first_stage completed, taking ([\d.]+)s", "".join(log))
    # A mark stands at the end of each pass, and one may before the first. That one has buffers to make.
    print(json.dumps({"UNet": (marks[-1] - marks[-STEPS]) / (STEPS - 1), "decoder": float(decoder[1])}))


def theirs(folder, setting, pixels):
    """The picture and the seconds, from a process of its own: not every setting survives."""
    file = folder / "theirs.png"
    command = [sys.executable, __file__, args.checkpoint, "--draw", setting, pixels, SEED, file]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"theirs, {setting}: ended with {done.returncode}: {''.join(done.stderr.splitlines()[-1:])}")
        return None
    return Image.open(file).copy(), json.loads(done.stdout.splitlines()[-1])


def draw(file, pixels, steps, seed):
    """Where our time goes, by its name."""
    command = [args.binary, "generate", PROMPT, "-m", args.checkpoint, "--device", "cpu", "--sampler", "euler", "--spacing",
               "linspace", "--guidance", "1", "--rng", "cuda", "-v", "-o", file, "--seed", seed, "--width", pixels,
               "--height", pixels, "--steps", steps]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, env=environment)
    return {what: float(seconds) for seconds, what in re.findall(r"([\d.]+) s  (.+)", done.stderr)}


def ours(folder, pixels, seed=SEED):
    file = folder / "ours.png"
    first, whole = (draw(file, pixels, steps, seed) for steps in (1, STEPS))
    unet = (whole["steps"] - first["steps"]) / (STEPS - 1)
    seconds = {"UNet": unet, "decoder": (first["decoding"] + whole["decoding"]) / 2}
    return Image.open(file).convert("RGB"), seconds


def difference(a, b):
    return statistics.mean(ImageStat.Stat(ImageChops.difference(a, b)).mean)


def fastest(folder, pixels):
    """For each network the setting that is fastest, of those that draw what we draw."""
    picture, _ = ours(folder, pixels)
    other, _ = ours(folder, pixels, seed=SEED + 1)
    print(f"our picture and that of another seed differ by {difference(picture, other):.1f} of 255")
    best = {}
    for setting in args.setting or SETTINGS:
        found = theirs(folder, setting, pixels)
        if found is None:
            continue
        drawn, seconds = found
        differ = difference(picture, drawn)
        times = ", ".join(f"{network} {time:.2f} s" for network, time in seconds.items())
        print(f"theirs, {setting}: {times}; differs from ours by {differ:.2f} of 255", flush=True)
        if not differ < LIMIT:
            raise SystemExit("theirs draws something else, and is not timed")
        for network, seconds in seconds.items():
            best[network] = min(best.get(network, (seconds, setting)), (seconds, setting))
    if not best:
        raise SystemExit("theirs draws with none of these settings")
    return {network: setting for network, (_, setting) in best.items()}


def compare(folder, pixels, best):
    rounds = []
    for _ in range(args.rounds):
        each = {setting: theirs(folder, setting, pixels)[1] for setting in set(best.values())}
        _, mine = ours(folder, pixels)
        rounds.append({network: (mine[network], each[setting][network]) for network, setting in best.items()})
    for network, setting in best.items():
        pairs = [times[network] for times in rounds]
        mine, other = (statistics.median(side) for side in zip(*pairs))
        ratios = sorted(other / mine for mine, other in pairs)
        print(
            f"{network:<8} {pixels}x{pixels}   ours {mine:6.2f} s   theirs {other:6.2f} s ({setting})   theirs / ours "
            f"{statistics.median(ratios):5.2f}  [{ratios[0]:.2f}, {ratios[-1]:.2f}]",
            flush=True,
        )


def main():
    sizes = args.pixels or [256, 512]
    print(f"stable-diffusion-cpp-python {sd.__version__}, {cores} cores")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        best = fastest(folder, sizes[0])
        for pixels in sizes:
            compare(folder, pixels, best)


draw_theirs(*args.draw) if args.draw else main()
