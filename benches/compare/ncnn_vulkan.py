#!/usr/bin/env python3
"""Our 3x3 convolutions and products against ncnn's Vulkan kernels on the same adapter.

    pip install ncnn numpy
    python benches/compare/ncnn_vulkan.py --device llvmpipe --processor-time

For each convolution the fastest of ncnn's ways counts: Winograd or implicit GEMM, f16 or f32 storage. Its side includes
handing the tensors over, which it does not offer to leave out; ours does not. On a software device both sides are the
processor's time, all threads together.
"""
import argparse
import pathlib
import tempfile
import time

import ncnn
import numpy as np

import ours

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--binary", default="target/release/ornstein")
parser.add_argument("--device", default="vulkan")
parser.add_argument("--dtype", default="f16", choices=("f16", "f32"))
parser.add_argument("--processor-time", action="store_true")
parser.add_argument("--rounds", type=int, default=3)
args = parser.parse_args()
clock = time.process_time if args.processor_time else time.perf_counter


def layer(text, weights, x, winograd, f16):
    """A function that runs a network of this one layer."""
    net = ncnn.Net()
    net.opt.use_vulkan_compute = True
    net.opt.use_winograd_convolution = winograd
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = f16
    net.opt.use_fp16_arithmetic = False
    with tempfile.TemporaryDirectory() as folder:
        param, model = pathlib.Path(folder, "net.param"), pathlib.Path(folder, "net.bin")
        param.write_text(f"7767517\n2 2\nInput in 0 1 in0\n{text}\n")
        model.write_bytes(b"\0\0\0\0" + b"".join(array.astype(np.float32).tobytes() for array in weights))
        net.load_param(str(param))
        net.load_model(str(model))
    # A Mat of an array only points to it, so the array must outlive the copy.
    array = np.ascontiguousarray(x, dtype=np.float32)
    x = ncnn.Mat(array).clone()

    def run():
        extractor = net.create_extractor()
        extractor.input("in0", x)
        result = extractor.extract("out0")[1]
        return np.array(result)

    return run


def ways(kind, shape):
    """ncnn's ways to compute this, each as a function, and the right result."""
    random = np.random.default_rng(1).standard_normal
    if kind == "linear":
        m, n, k = shape
        w, x = random((n, k)) * k**-0.5, random((m, k))
        text = f"InnerProduct y 1 1 in0 out0 0={n} 1=1 2={n * k}"
        return [layer(text, [w, np.zeros(n)], x, False, f16) for f16 in (True, False)], x @ w.T
    _, channels, out, size = shape
    w = random((out, channels, 3, 3)) * (9 * channels) ** -0.5
    x = random((channels, size, size))
    text = f"Convolution y 1 1 in0 out0 0={out} 1=3 4=1 5=1 6={w.size}"
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    right = sum(
        np.einsum("oc,chw->ohw", w[:, :, i, j], padded[:, i : i + size, j : j + size]) for i in range(3) for j in range(3)
    )
    return [layer(text, [w, np.zeros(out)], x, *how) for how in ((True, True), (True, False), (False, True), (False, False))], right


def theirs(shapes):
    found = {}
    for kind, shape in shapes:
        # It has no attention of this kind, and takes one picture at a time.
        if kind == "attention" or (kind == "conv3x3" and shape[0] != 1):
            continue
        best = float("inf")
        runs, right = ways(kind, shape)
        for run in runs:
            error = np.linalg.norm(run() - right) / np.linalg.norm(right)
            if not error < 1e-2:
                print(f"ncnn: {kind} {shape} is off by {error:.1e} in one of its ways, which does not count")
                continue
            # The least of some runs: what counts for ours as well.
            for _ in range(5):
                start = clock()
                run()
                best = min(best, clock() - start)
        if best < float("inf"):
            found[kind, shape] = best
    return found


facts = {}


def mine():
    rows, device = ours.bench(args.binary, args.device, args.dtype, args.processor_time, ["matmul", "conv2d"])
    facts.update(device)
    return rows


ours.compare(args.rounds, mine, theirs, f"ncnn {ncnn.__version__}")
print(f"{facts.get('name')}, {facts.get('driver')}, {args.dtype}, ceilings {facts.get('ceilings')}")
