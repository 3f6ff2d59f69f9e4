#!/usr/bin/env python3
"""Write trajectories of diffusers' schedulers on sigmas that are spread as other programs do, for kernels-tests/samplers.rs.

    pip install torch diffusers scipy safetensors
    python make_schedules.py OUT_DIR

The lists are k-diffusion's and ComfyUI's arithmetic in NumPy; where diffusers has a key for one, the key makes it. The
schedulers are given them in place of the list that `use_karras_sigmas` (of those that look for whole timesteps) or
`use_exponential_sigmas` makes; Euler's ancestral one, which has no such key, has its sigmas replaced. The files are those of
make_samplers.py, with a `schedule` for each case.
"""
import json
import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file

import make_samplers as kit

WHOLE = ("dpm++2m", "dpm++2m-sde", "dpm++2s", "deis", "unipc")
SAMPLERS = ("euler", "euler-a", "heun", "dpm2", "dpm2-a", "lms") + WHOLE
MODEL = kit.SD | dict(clip_sample=False)
VELOCITY = MODEL | kit.VP
REAL = kit.scheduler
TABLES = {False: [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029],
          True: [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029]}


def training():
    betas = torch.linspace(kit.SD["beta_start"] ** 0.5, kit.SD["beta_end"] ** 0.5, 1000, dtype=torch.float32) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    return (((1 - alphas) / alphas) ** 0.5).numpy().astype(np.float64)


SIGMAS = training()


def at(t):
    """ModelSamplingDiscrete.sigma"""
    logs, low = np.log(SIGMAS), np.floor(t).astype(int)
    part = t - low
    return np.exp((1 - part) * logs[low] + part * logs[np.ceil(t).astype(int)])


def aligned(n, xl=False):
    levels = TABLES[xl]
    xs, ys = np.linspace(0, 1, len(levels)), np.log(levels[::-1])
    return np.exp(np.interp(np.linspace(0, 1, n), xs, ys))[::-1].copy() if n > 1 else np.array(levels[:1])


def kl_optimal(n):
    share = np.arange(n) / max(n - 1, 1)
    return np.tan(share * np.arctan(SIGMAS[0]) + (1 - share) * np.arctan(SIGMAS[-1]))


LISTS = {
    "polyexponential": lambda n: np.exp(np.linspace(np.log(SIGMAS[-1]), np.log(SIGMAS[0]), n)),
    "normal": lambda n: at(np.linspace(999, 0, n)),
    "simple": lambda n: np.array([SIGMAS[-(1 + int(x * len(SIGMAS) / n))] for x in range(n)]),
    "sgm_uniform": lambda n: at(np.linspace(999, 0, n + 1)[:-1]),
    "ddim_uniform": lambda n: SIGMAS[1::max(len(SIGMAS) // n, 1)][::-1].copy(),
    "kl_optimal": kl_optimal,
    "align_your_steps": aligned,
}


def scheduler(sampler, config, sigmas):
    """One whose list of sigmas is this."""
    key = "karras" if sampler in WHOLE else "exponential"
    own = REAL(sampler, config | {f"use_{key}_sigmas": True})
    setattr(own, f"_convert_to_{key}", lambda *args, **more: sigmas)
    if sampler == "euler-a":
        euler, set_timesteps = REAL("euler", config), own.set_timesteps

        def replaced(steps):
            set_timesteps(steps)
            logs = np.log(SIGMAS.astype(np.float32))
            own.timesteps = torch.tensor([float(euler._sigma_to_t(sigma, logs)) for sigma in sigmas], dtype=torch.float32)
            own.sigmas = torch.tensor([*sigmas, 0.0], dtype=torch.float32)

        own.set_timesteps = replaced
    return own


def main(out):
    os.makedirs(out, exist_ok=True)
    manifest, tensors = {}, {}
    counts = (4, 16, 7, 10, 2, 5, 3)
    jobs = [(sampler, name, MODEL if i % 2 else VELOCITY, counts[i], LISTS[name])
            for sampler in SAMPLERS for i, name in enumerate(LISTS)]
    jobs += [("euler", "normal", MODEL, 1, LISTS["normal"]), ("dpm++2m", "simple", MODEL, 150, LISTS["simple"])]
    jobs += [(sampler, "beta", MODEL, steps, None) for sampler, steps in
             zip([s for s in SAMPLERS if s != "euler-a"], (4, 16, 7, 10, 2, 5, 3, 8, 12, 6))]
    with kit.rounded(), np.errstate(all="ignore"):
        for seed, (sampler, name, config, steps, made) in enumerate(jobs):
            kit.scheduler = (lambda *case: scheduler(*case, made(steps))) if made else REAL
            entry, found = kit.run(sampler, config | ({} if made else {"use_beta_sigmas": True}), steps, seed)
            entry["config"] = config
            case = f"{sampler}.{name}.{steps}"
            if entry is None or "refused" in entry:
                sys.exit(f"{case}: {entry}")
            manifest[case] = entry | {"schedule": name}
            tensors |= {f"{case}.{key}": value.contiguous().clone() for key, value in found.items()}
    save_file(tensors, os.path.join(out, "cases.safetensors"))
    with open(os.path.join(out, "cases.json"), "w") as f:
        rows = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in manifest.items())
        f.write("{\n" + ",\n".join(rows) + "\n}\n")
    print(len(manifest), "cases")


if __name__ == "__main__":
    main(sys.argv[1])
