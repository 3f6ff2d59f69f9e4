#!/usr/bin/env python3
"""How time and memory grow with the picture: Stable Diffusion 1.5's UNet and VAE decoder at full size.

    pip install matplotlib
    cargo build --release
    python benches/scaling.py --device cpu --plot docs/scaling.svg

Each size in pixels and each batch is one run of `ornstein bench --synthetic sd15`, with generated weights. Memory is the
device's as the program counts it, or on the CPU the largest resident set of the run, whose weights are part of it. The
plot sets both beside the operations: on a straight line nothing is wasted as pictures grow.
"""
import argparse
import json
import os
import subprocess
import sys

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--binary", default="target/release/ornstein")
parser.add_argument("--device", default="auto")
parser.add_argument("--size", type=int, action="append", help="pixels of a side [default: 256, 512, 768, 1024]")
parser.add_argument("--batch", type=int, action="append", help="rows of the UNet at the smallest size [default: 1, 2, 4, 8]")
parser.add_argument("--plot", help="an SVG to write")
args = parser.parse_args()
sizes = args.size or [256, 512, 768, 1024]
batches = args.batch or [1, 2, 4, 8]


def measure(size, batch):
    """The networks' rows of a report, and the process's largest resident set in bytes."""
    command = [args.binary, "bench", "--synthetic", "sd15", "--latent", size // 8, "--batch", batch, "--device", args.device, "--json"]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE)
    report = json.load(process.stdout)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command))} failed")
    return report, usage.ru_maxrss * 1024


def points():
    for size, batch in [(size, batches[0]) for size in sizes] + [(sizes[0], batch) for batch in batches[1:]]:
        report, resident = measure(size, batch)
        for row in report["networks"]:
            # The decoder takes one picture at a time.
            if row["network"] == "unet" or (row["network"] == "vae" and batch == batches[0]):
                memory = row["device_bytes"] or resident
                yield row["network"], size, batch, row["flops"] / 1e9, row["median"], memory / 1e9, report["device"]["name"]


def plot(measured, path):
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, (time, memory) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, label, marker in (("unet", "UNet", "o"), ("vae", "VAE decoder", "s")):
        for grown, style in ((1, "-"), (2, "--")):
            rows = [row for row in measured if row[0] == name and (row[2] == batches[0] if grown == 1 else row[1] == sizes[0])]
            if len(rows) < 2:
                continue
            what = "larger pictures" if grown == 1 else f"more of {sizes[0]} pixels"
            for axes, column in ((time, 4), (memory, 5)):
                axes.plot([row[3] for row in rows], [row[column] for row in rows], style, marker=marker, label=f"{label}, {what}")
    for axes, title, scale in ((time, "seconds of a pass", "log"), (memory, "memory, GB", "linear")):
        axes.set(xscale="log", yscale=scale, xlabel="GFLOP of a pass", title=title)
        axes.grid(True, which="both", alpha=0.3)
    memory.set_ylim(bottom=0)
    time.legend()
    figure.suptitle(f"Stable Diffusion 1.5, device: {measured[0][6]}")
    figure.savefig(path, metadata={"Date": None})


measured = []
print(f"{'network':<8} {'pixels':>6} {'batch':>5} {'GFLOP':>8} {'seconds':>8} {'GFLOP/s':>8} {'GB':>6}")
for point in points():
    measured.append(point)
    name, size, batch, gflop, seconds, memory, _ = point
    print(f"{name:<8} {size:>6} {batch:>5} {gflop:>8.0f} {seconds:>8.2f} {gflop / seconds:>8.0f} {memory:>6.2f}", flush=True)
if args.plot:
    plot(measured, args.plot)
