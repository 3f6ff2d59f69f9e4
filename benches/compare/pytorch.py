#!/usr/bin/env python3
"""Our products, 3x3 convolutions and attention against PyTorch's: cuBLAS, cuDNN (channels last) and
scaled_dot_product_attention on CUDA in half precision, or its CPU kernels in f32.

    pip install torch
    python benches/compare/pytorch.py --device vulkan          # the same card, by CUDA and by Vulkan
    python benches/compare/pytorch.py --device cpu --torch cpu # our CPU executor and PyTorch's, on all cores
"""
import argparse
import time

import torch

import ours

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--binary", default="target/release/ornstein")
parser.add_argument("--device", default="vulkan")
parser.add_argument("--torch", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cuda", "cpu"))
parser.add_argument("--rounds", type=int, default=3)
args = parser.parse_args()
on_cuda = args.torch == "cuda"
dtype = torch.float16 if on_cuda else torch.float32


def seconds(run, repeats=20):
    """The least of runs that each wait for the last, after three that warm up: what counts for ours as well."""
    times = []
    for index in range(repeats + 3):
        if on_cuda:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        else:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return min(times[3:])


def random(*shape):
    return torch.randn(*shape, device=args.torch, dtype=dtype)


def layer(kind, shape):
    functional = torch.nn.functional
    if kind == "linear":
        m, n, k = shape
        x, w, bias = random(m, k), random(n, k), random(n)
        return lambda: functional.linear(x, w, bias)
    if kind == "conv3x3":
        batch, channels, out, size = shape
        x = random(batch, channels, size, size).to(memory_format=torch.channels_last)
        w = random(out, channels, 3, 3).to(memory_format=torch.channels_last)
        bias = random(out)
        return lambda: functional.conv2d(x, w, bias, padding=1)
    batch, heads, queries, keys, d = shape
    q, k, v = random(batch, heads, queries, d), random(batch, heads, keys, d), random(batch, heads, keys, d)
    return lambda: functional.scaled_dot_product_attention(q, k, v)


@torch.no_grad()
def theirs(shapes):
    return {what: seconds(layer(*what)) for what in shapes}


facts = {}


def mine():
    dtype = "f16" if on_cuda else "f32"
    rows, device = ours.bench(args.binary, args.device, dtype, False, ["matmul", "conv2d", "attention"])
    facts.update(device)
    return rows


ours.compare(args.rounds, mine, theirs, f"PyTorch {torch.__version__}")
card = torch.cuda.get_device_name() if on_cuda else f"{torch.get_num_threads()} threads"
print(f"{facts.get('name')}, {facts.get('driver', '')} / {card}, ceilings {facts.get('ceilings')}")
