#!/usr/bin/env python3
"""What the compilers of real GPUs make of the kernels, on devices that compile and execute nothing (`setup.sh`, `ghost`).

    kernels.py [--gpu navi31,nv174] [--op matmul] [--dtype f16] table
        of each variant that the device is offered, its longest kernel: registers, spills, occupancy, and what bounds the
        loop that multiplies (the columns are explained in README.md)
    kernels.py [--gpu ..] [--op ..] compare BEFORE AFTER
        the same of two folders of shaders, as built-in text would be compiled
    kernels.py [--op matmul,conv2d,matmul_geglu,attention] bounds > ../../src/lab/predict/bounds.toml
        of each variant with a loop that multiplies, the share of the peak that its instructions and workgroup memory allow
    kernels.py [--gpu ..] check
        compiles every kernel that the devices are offered. Fails if a kernel spills registers or uses scratch memory
        that spills.toml does not list, if one that it lists no longer does, and if `ornstein shader --to spirv` prints
        something else than what reaches a driver. With another version of Mesa than spills.toml's it only says so
"""
import argparse
import gzip
import json
import os
import struct
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hot

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("GHOST_ROOT") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ghost")
GPUS = "navi21,navi31,gfx1201,nv164,nv174,apple,intel56a0,intele20b,adreno740"


def ghost(gpu, *command, **environment):
    """Runs a command on a device, which computes nothing: so `validate` fails, and that is not an error here."""
    env = os.environ | environment
    return subprocess.run([HERE / "ghost", gpu, *command], env=env, capture_output=True, text=True, errors="replace")


def statistics(gpu, module):
    """The row of hot.py for a module. With subgroup operations wgpu allows any size of subgroups."""
    ran = ghost(gpu, ROOT / "pipestat", "-i", "-v", module)
    if ran.returncode:
        return {"error": (ran.stderr or ran.stdout).strip().splitlines()[-1:] or [f"exit code {ran.returncode}"]}
    return hot.look_at(ran.stdout)


def captured(args, gpu, folder, *which):
    """The modules that reach the driver when `validate` checks these kernels."""
    # wgpu finds no f16 on Qualcomm's GPUs, which lack some of its types.
    dtype = "f32" if gpu.startswith("adreno") else args.dtype
    validate = ["validate", *which, "--all-variants", "--dtype", dtype, "--device", "vulkan"]
    ran = ghost(gpu, args.binary, *validate, GHOST_CAPTURE=str(folder))
    # 1: all rows failed, as they must here. 2: the device is not offered the variant that was asked for.
    if ran.returncode not in ((0, 1, 2) if "--variant" in which else (0, 1)):
        sys.exit(f"{gpu}: validate {' '.join(which)} ended with {ran.returncode}: {ran.stderr.strip()[-300:]}")
    return sorted(path for path in Path(folder).glob("*.spv") if is_kernel(path.read_bytes()))


def is_kernel(module):
    """wgpu has kernels of its own, whose resources are not all in set 0."""
    return not any(len(o) == 4 and o[0] & 0xFFFF == 71 and o[2] == 34 and o[3] for o in instructions(module))


def instructions(module):
    words, at = struct.unpack(f"<{len(module) // 4}I", module), 5
    while at < len(words):
        yield words[at : at + (words[at] >> 16)]
        at += words[at] >> 16


def variants(args):
    """Every op's kernels: (shader, variant)."""
    ask = lambda *command: json.loads(subprocess.check_output([args.binary, "shader", *command, "--json"], text=True))
    shaders = [name for name in ask()["shaders"] if not args.op or name in args.op]
    return [(name, v) for name in shaders for v in ask(name, "--dtype", args.dtype)["variants"]]


def longest(rows):
    rows = [row for row in rows if "error" not in row]
    return max(rows, key=lambda row: row.get("instructions") or 0, default=None)


def longest_of(args, gpu):
    """Of each variant that the device is offered, the row of its longest kernel."""
    for op, variant in variants(args):
        with tempfile.TemporaryDirectory() as folder:
            modules = captured(args, gpu, folder, op, "--variant", variant)
            with ThreadPoolExecutor() as pool:
                rows = list(pool.map(lambda module: statistics(gpu, module), modules))
        if row := longest(rows):
            yield f"{op} {variant}", row


def table(args):
    for gpu in args.gpu:
        for name, row in longest_of(args, gpu):
            print(hot.describe(name, row), flush=True)


def bounds(args):
    print("# What the compilers' instructions and workgroup memory leave of the peak. Made by `kernels.py bounds`.")
    for gpu in args.gpu:
        print(f"\n[{gpu}]", flush=True)
        for name, row in longest_of(args, gpu):
            # A kernel without workgroup memory waits for memory, which is not counted.
            if row.get("lds_bytes") and (bound := hot.bound(row)):
                print(f'"{name}" = {bound:.2f}', flush=True)


def compare(args):
    for op, variant in variants(args):
        with tempfile.TemporaryDirectory() as folder:
            made = []
            for name in ("before", "after"):
                module = Path(folder) / f"{name}.spv"
                shader = [args.binary, "shader", op, "--variant", variant, "--dtype", args.dtype, "--to", "spirv"]
                subprocess.run([*shader, "--trusted", "--shaders", getattr(args, name), "-o", module], check=True)
                made.append(module)
            if made[0].read_bytes() == made[1].read_bytes():
                continue
            for gpu in args.gpu:
                for module in made:
                    row = statistics(gpu, module)
                    print(row["error"] if "error" in row else hot.describe(f"{op} {variant} {module.stem}", row), flush=True)


def operations(module):
    """A module's instructions without their operands, which are numbered through, and without the capabilities, which
    are the device's."""
    return [first for first, *_ in instructions(module) if first & 0xFFFF != 17]


def misprinted(args, gpu, op="conv2d"):
    """Variants of an op whose printed module is none of those that the driver is given."""
    for variant in [variant for name, variant in variants(args) if name == op]:
        with tempfile.TemporaryDirectory() as folder:
            given = [m.read_bytes() for m in captured(args, gpu, folder, op, "--variant", variant)]
        command = [args.binary, "shader", op, "--variant", variant, "--dtype", args.dtype, "--to", "spirv"]
        printed = operations(subprocess.check_output(command))
        if given and printed not in map(operations, given):
            yield variant


def mesa():
    """The version of the drivers, as Debian's changelog names it."""
    with gzip.open(ROOT / "usr/share/doc/mesa-vulkan-drivers/changelog.Debian.gz", "rt") as log:
        return log.readline().split("(")[1].split("-")[0]


def check(args):
    expected = tomllib.loads((HERE / "spills.toml").read_text())
    listed = expected["kernels"]
    wrong = []
    for gpu in args.gpu:
        compiled = 0
        for op in sorted({op for op, _ in variants(args)}):
            with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
                modules = captured(args, gpu, folder, op)
                rows = list(pool.map(lambda module: statistics(gpu, module), modules))
            compiled += len(rows)
            wrong += [f"{gpu}: a kernel of {op} does not compile: {row['error']}" for row in rows if "error" in row]
            spilling = [row for row in rows if row.get("spills") or row.get("scratch")]
            known = [entry for entry in listed if entry["op"] == op and gpu in entry["gpus"]]
            if spilling and not known:
                wrong.append(f"{gpu}: {len(spilling)} kernels of {op} spill; `--gpu {gpu} --op {op} table` shows which")
            if known and not spilling:
                wrong.append(f"{gpu}: no kernel of {op} spills any more: take it out of spills.toml")
        if gpu.startswith("nv"):  # cooperative kernels are printed for subgroups of 32
            wrong += [f"{gpu}: `shader conv2d --variant {v} --to spirv` is not what runs" for v in misprinted(args, gpu)]
        print(f"{gpu}: {compiled} kernels compiled", flush=True)
        if not compiled:
            wrong.append(f"{gpu}: no kernel reached the driver")
    if wrong and mesa() != expected["mesa"]:
        print("\n".join(wrong), f"spills.toml is about Mesa {expected['mesa']}, and this is {mesa()}", sep="\n")
    else:
        sys.exit("\n".join(wrong) or 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", default=GPUS, help="as `ghost` calls them, with commas between")
    parser.add_argument("--op", help="shaders, with commas between")
    parser.add_argument("--dtype", default="f16", choices=["f16", "f32"], help="of activations, where the device has f16")
    parser.add_argument("--binary", default=HERE.parents[1] / "target/release/ornstein")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("table").set_defaults(run=table)
    commands.add_parser("bounds").set_defaults(run=bounds)
    commands.add_parser("check").set_defaults(run=check)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before")
    comparing.add_argument("after")
    comparing.set_defaults(run=compare)
    args = parser.parse_args()
    args.gpu, args.op = args.gpu.split(","), args.op and args.op.split(",")
    args.run(args)


if __name__ == "__main__":
    main()
