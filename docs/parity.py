#!/usr/bin/env python3
"""Compare `ornstein forward` with PyTorch on reference cases, and print a table of relative errors and times.

A case is a model folder that holds `<name>.inputs.safetensors` and `<name>.outputs.safetensors`, as
`kernels-tests/data/make_reference.py` writes them.

    pip install numpy safetensors
    cargo build --release
    python docs/parity.py kernels-tests/data/cases --run cpu --run llvmpipe:f32 --run llvmpipe:f16

Exits with 1 if an error exceeds the limit: 2e-5 on the CPU, 1e-4 on a GPU in f32, 5e-3 in f16.
"""
import argparse, pathlib, subprocess, sys, tempfile, time

import numpy as np
from safetensors.numpy import load_file

COMPONENTS = ("text-encoder-2", "text-encoder", "vae-decoder", "vae-encoder", "unet")
LIMITS = {"cpu": 2e-5, "f32": 1e-4, "f16": 5e-3}


def cases(folder):
    for inputs in sorted(folder.rglob("*.inputs.safetensors")):
        name = inputs.name.removesuffix(".inputs.safetensors")
        component = next((c for c in COMPONENTS if name == c or name.startswith(c + "-")), None)
        if component:
            yield inputs.parent, name, component


def worst_error(outputs, wanted):
    errors = []
    for name, reference in wanted.items():
        reference = reference.astype(np.float64)
        errors.append(np.linalg.norm(outputs[name] - reference) / np.linalg.norm(reference))
    return max(errors)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("cases", type=pathlib.Path)
    a.add_argument("--run", action="append", metavar="DEVICE[:DTYPE]", help="may be given several times; default cpu")
    a.add_argument("--binary", default="target/release/ornstein")
    args = a.parse_args()
    runs = args.run or ["cpu"]
    print("| case | " + " | ".join(runs) + " |\n|---|" + "---|" * len(runs))
    failed = False
    for folder, name, component in cases(args.cases):
        cells = []
        for run in runs:
            device, _, dtype = run.partition(":")
            with tempfile.TemporaryDirectory() as out:
                out = pathlib.Path(out) / "out.safetensors"
                command = [args.binary, "forward", component, "-m", folder, "--device", device, "--dtype", dtype or "auto",
                           "--inputs", folder / f"{name}.inputs.safetensors", "--outputs", out]
                start = time.perf_counter()
                subprocess.run(command, check=True)
                seconds = time.perf_counter() - start
                error = worst_error(load_file(out), load_file(folder / f"{name}.outputs.safetensors"))
            over = not error <= LIMITS["cpu" if device == "cpu" else dtype or "f16"]
            failed |= over
            cells.append(f"{error:.1e}{' OVER' if over else ''}, {seconds:.1f} s")
        print(f"| {folder.name} {name} | " + " | ".join(cells) + " |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
