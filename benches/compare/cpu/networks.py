#!/usr/bin/env python3
"""Whole networks on the CPU: ours against PyTorch in f32 and candle, on all cores that this process may use.

    pip install torch diffusers safetensors
    cargo build --release
    cargo build --release --manifest-path benches/compare/candle/Cargo.toml
    python benches/compare/cpu/networks.py --candle benches/compare/candle/target/release/candle-networks

Stable Diffusion 1.5's UNet and VAE decoder at full size, the same random weights and the same inputs for all. First the
outputs are compared, by the relative error to PyTorch's; then everybody is timed in turns. To compare on fewer cores,
run this under `taskset`.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import safetensors.torch
import torch

import model

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--binary", default="target/release/ornstein")
parser.add_argument("--candle", help="the program that benches/compare/candle builds")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--case", action="append", choices=("unet-32", "unet-64", "vae-decoder-32"), help="only this one")
args = parser.parse_args()
cores = len(os.sched_getaffinity(0))
torch.set_num_threads(cores)
environment = dict(os.environ, RAYON_NUM_THREADS=str(cores))

# Largest relative errors to PyTorch: ours is what the project promises, candle's rounds differently in more places.
LIMITS = {"ours": 2e-5, "candle": 1e-3}


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, env=environment).stdout


class PyTorch:
    def __init__(self, networks):
        self.networks = networks

    @torch.no_grad()
    def forward(self, component, given):
        if component == "vae-decoder":
            return self.networks["vae"].decode(given["z"]).sample
        return self.networks["unet"](given["sample"], given["timestep"], given["encoder_hidden_states"]).sample

    def seconds(self, component, given, _files):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            self.forward(component, given)
            times.append(time.perf_counter() - start)
        return statistics.median(times)


class Ours:
    def __init__(self, folder):
        self.folder = folder

    def output(self, component, files):
        run(args.binary, "forward", component, "-m", self.folder, "--inputs", files[0], "--outputs", files[1], "--device", "cpu")
        return safetensors.torch.load_file(files[1])["sample"]

    def seconds(self, component, given, _files):
        latent = given["z" if component == "vae-decoder" else "sample"].shape[-1]
        # `bench` times all networks of a model: beside the UNet there is a small decoder.
        folder = self.folder if component == "vae-decoder" else self.folder / "unet-alone"
        report = run(args.binary, "bench", "-m", folder, "--latent", latent, "--device", "cpu", "--json")
        network = component.split("-")[0]
        return next(row["median"] for row in json.loads(report)["networks"] if row["network"] == network)


class Candle:
    def __init__(self, folder):
        self.folder = folder

    def run(self, component, files, runs):
        return json.loads(run(args.candle, component, self.folder, files[0], files[1], runs))

    def output(self, component, files):
        self.run(component, files, 1)
        return safetensors.torch.load_file(files[1])["sample"]

    def seconds(self, component, _given, files):
        return statistics.median(self.run(component, files, 3))


def compare(name, pytorch, peers, folder):
    component, latent = name.rsplit("-", 1)
    given = model.inputs(component, int(latent))
    files = [folder / "inputs.safetensors", folder / "outputs.safetensors"]
    safetensors.torch.save_file(given, files[0])
    right = pytorch.forward(component, given)
    for peer, side in peers.items():
        error = ((side.output(component, files) - right).norm() / right.norm()).item()
        print(f"{name}: {peer} differs from PyTorch by {error:.1e}", flush=True)
        if not error < LIMITS[peer]:
            raise SystemExit(f"{name}: {peer} computes something else, and is not timed")
    sides = {"PyTorch": pytorch, **peers}
    rounds = [{side: s.seconds(component, given, files) for side, s in sides.items()} for _ in range(args.rounds)]
    medians = {side: statistics.median(times[side] for times in rounds) for side in sides}
    for side in (side for side in sides if side != "ours"):
        ratios = sorted(times[side] / times["ours"] for times in rounds)
        print(
            f"{name:<16} ours {medians['ours']:7.2f} s   {side:<8} {medians[side]:7.2f} s   theirs / ours "
            f"{statistics.median(ratios):5.2f}  [{ratios[0]:.2f}, {ratios[-1]:.2f}]",
            flush=True,
        )


def main():
    networks = model.networks()
    print(f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {cores} cores")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model.save(networks, folder)
        model.save({"vae": model.small_vae()}, folder / "unet-alone")
        (folder / "unet-alone" / "unet").symlink_to(folder / "unet")
        peers = {"ours": Ours(folder)} | ({"candle": Candle(folder)} if args.candle else {})
        for name in args.case or ("unet-32", "unet-64", "vae-decoder-32"):
            compare(name, PyTorch(networks), peers, folder)


main()
