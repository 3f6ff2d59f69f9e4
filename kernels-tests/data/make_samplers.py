#!/usr/bin/env python3
"""Write trajectories of diffusers' schedulers on a known denoiser, for kernels-tests/samplers.rs.

    pip install torch diffusers scipy safetensors
    python make_samplers.py OUT_DIR [--all]

The denoiser is 0.3 * x + 0.05 * cos(t / 100), x being the scaled input, so the sampler alone is tested. cases.json tells
each case's sampler, steps and scheduler_config; cases.safetensors holds its timesteps, sigmas (if the class has any), start
latents, every noise draw in order, and the latents after each evaluation. A case without init_noise_sigma is one that
diffusers refuses. Other cases than the repository's are tried with

    ORNSTEIN_SAMPLER_CASES=OUT_DIR cargo test --release --test kernels -- samplers

--all makes the plain samplers and every crossing of samplers and configs, each with nine numbers of steps (some
thousands of cases); without it, each crossing has one, which is what samplers/crossed/ holds. (samplers/plain/ holds the
plain samplers with 1, 4, 7 and 20 steps, made apart from this script but in the same way.) Made with diffusers 0.42.1 and
torch 2.15.0.
"""
import argparse
import contextlib
import inspect
import json
import os
import sys

import diffusers
import numpy as np
import torch
from safetensors.torch import save_file

CLASSES = {
    "ddpm": "DDPMScheduler", "ddim": "DDIMScheduler", "pndm": "PNDMScheduler", "lms": "LMSDiscreteScheduler",
    "euler": "EulerDiscreteScheduler", "euler-a": "EulerAncestralDiscreteScheduler", "heun": "HeunDiscreteScheduler",
    "dpm2": "KDPM2DiscreteScheduler", "dpm2-a": "KDPM2AncestralDiscreteScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler", "dpm++2m-sde": "DPMSolverMultistepScheduler",
    "dpm++2s": "DPMSolverSinglestepScheduler", "deis": "DEISMultistepScheduler", "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler", "tcd": "TCDScheduler",
}
SD = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
VP = dict(prediction_type="v_prediction")

# Configurations that every sampler is tried with. A name that starts with "own" has no other class's keys.
CROSSED = {
    "empty": {},
    "sd1-pndm": SD | dict(_class_name="PNDMScheduler", skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1,
                          clip_sample=False, trained_betas=None),
    "sd2-ddim": SD | VP | dict(_class_name="DDIMScheduler", clip_sample=False, set_alpha_to_one=False, steps_offset=1,
                               skip_prk_steps=True),
    "sdxl-euler": SD | dict(_class_name="EulerDiscreteScheduler", interpolation_type="linear", steps_offset=1,
                            timestep_spacing="leading", use_karras_sigmas=False, sample_max_value=1.0,
                            set_alpha_to_one=False, skip_prk_steps=True, clip_sample=False),
    "leading-1": SD | dict(timestep_spacing="leading", steps_offset=1, clip_sample=False, skip_prk_steps=True),
    "leading-v": SD | VP | dict(timestep_spacing="leading", steps_offset=0, clip_sample=False, skip_prk_steps=True),
    "trailing": SD | dict(timestep_spacing="trailing", clip_sample=False, skip_prk_steps=True),
    "trailing-v": SD | VP | dict(timestep_spacing="trailing", clip_sample=False, skip_prk_steps=True),
    "linspace": SD | dict(timestep_spacing="linspace", clip_sample=False, skip_prk_steps=True),
    "karras": SD | dict(use_karras_sigmas=True, clip_sample=False, skip_prk_steps=True),
    "karras-v-leading": SD | VP | dict(use_karras_sigmas=True, timestep_spacing="leading", steps_offset=1,
                                       clip_sample=False),
    "karras-limits": SD | dict(use_karras_sigmas=True, sigma_min=0.05, sigma_max=10.0, clip_sample=False),
    "exponential": SD | dict(use_exponential_sigmas=True, clip_sample=False),
    "sigma-min": SD | dict(final_sigmas_type="sigma_min", clip_sample=False),
    "sigma-min-karras": SD | dict(final_sigmas_type="sigma_min", use_karras_sigmas=True, clip_sample=False),
    "cosine": dict(beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True, clip_sample=False),
    "linear-v": VP | dict(beta_schedule="linear", clip_sample=False),
    "few-training-steps": dict(num_train_timesteps=100, beta_start=0.001, beta_end=0.2, original_inference_steps=25),
    "trained": dict(trained_betas=[0.001 * (i + 1) for i in range(60)], num_train_timesteps=60,
                    original_inference_steps=30),
    "zero-snr": SD | VP | dict(rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
                               skip_prk_steps=True),
    "zero-snr-leading": SD | VP | dict(rescale_betas_zero_snr=True, timestep_spacing="leading", clip_sample=False),
    "clip": SD | dict(clip_sample=True, clip_sample_range=0.7),
    "threshold": SD | dict(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.6),
    "sample": SD | dict(prediction_type="sample", clip_sample=False),
    "order-1": SD | dict(solver_order=1, clip_sample=False),
    "order-3": SD | dict(solver_order=3, clip_sample=False),
    "order-3-v-karras": SD | VP | dict(solver_order=3, use_karras_sigmas=True, clip_sample=False),
    "order-3-full": SD | dict(solver_order=3, lower_order_final=False, final_sigmas_type="sigma_min"),
    "order-2-full": SD | dict(lower_order_final=False, final_sigmas_type="sigma_min"),
    "solver-heun": SD | dict(solver_type="heun", clip_sample=False),
    "solver-heun-3": SD | dict(solver_type="heun", solver_order=3, clip_sample=False),
    "clipped-lambda": dict(beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1, clip_sample=False),
    "no-spacing-sde": SD | dict(_class_name="DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"),
}
# Configurations of some samplers only.
MULTI = ("dpm++2m", "dpm++2m-sde")
SOME = {
    "small-log": (("ddpm",), SD | dict(variance_type="fixed_small_log")),
    "large": (("ddpm",), SD | dict(variance_type="fixed_large")),
    "variance-null": (("ddpm",), SD | dict(variance_type=None)),
    "laplace": (("ddpm",), dict(beta_schedule="laplace")),
    "sigmoid": (("ddpm",), dict(beta_schedule="sigmoid")),
    "exp": (("heun",), dict(beta_schedule="exp")),
    "alpha-one": (("ddim", "pndm"), SD | dict(set_alpha_to_one=True, clip_sample=False)),
    "runge-kutta": (("pndm",), SD | dict(skip_prk_steps=False)),
    "runge-kutta-v": (("pndm",), SD | VP | dict(skip_prk_steps=False, steps_offset=1)),
    "continuous": (("euler",), SD | VP | dict(timestep_type="continuous", use_karras_sigmas=True, sigma_min=0.002,
                                              sigma_max=700.0)),
    "original-sample": (("euler",), SD | dict(prediction_type="original_sample")),
    "euler-at-final": (MULTI, SD | dict(euler_at_final=True, final_sigmas_type="sigma_min")),
    "lu": (MULTI, SD | dict(use_lu_lambdas=True)),
    "dpmsolver": (MULTI + ("dpm++2s",), SD | dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min")),
    "dpmsolver-heun-3": (MULTI[:1] + ("dpm++2s",), SD | dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min",
                                                         solver_type="heun", solver_order=3)),
    "dpmsolver-threshold": (MULTI, SD | VP | dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min",
                                                  thresholding=True)),
    "sde-dpmsolver": (MULTI[1:], SD | dict(algorithm_type="sde-dpmsolver", final_sigmas_type="sigma_min")),
    "sde-dpmsolver-heun": (MULTI[1:], SD | dict(algorithm_type="sde-dpmsolver", final_sigmas_type="sigma_min",
                                                solver_type="heun")),
    "bh1": (("unipc",), SD | dict(solver_type="bh1", solver_order=3)),
    "order-4": (("unipc",), SD | dict(solver_order=4)),
    "predict-noise": (("unipc",), SD | VP | dict(predict_x0=False, final_sigmas_type="sigma_min")),
    "no-corrector": (("unipc",), SD | dict(disable_corrector=[0, 2])),
    "lcm-4x": (("lcm",), SD | dict(original_inference_steps=100, timestep_scaling=5.0)),
    "tcd-4x": (("tcd",), SD | dict(original_inference_steps=100)),
    "eta": (("tcd",), SD | dict(eta=0.3)),
    "eta-v": (("tcd",), SD | VP | dict(eta=0.45)),
    "eta-sample": (("tcd",), SD | dict(eta=0.7, prediction_type="sample")),
    "eta-one": (("tcd",), SD | dict(eta=1.0)),
    "eta-ddim": (("ddim",), SD | dict(eta=0.3, clip_sample=False, set_alpha_to_one=False, steps_offset=1)),
    "eta-ddim-v": (("ddim",), SD | VP | dict(eta=0.6, timestep_spacing="trailing", clip_sample=False)),
    "eta-ddim-clip": (("ddim",), SD | dict(eta=1.0)),
}
PLAIN = {
    "ddpm": {"clip_sample": False}, "ddim": {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
    "pndm": {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}, "lms": {},
    "euler": {"steps_offset": 1, "timestep_spacing": "leading"}, "euler-a": {"steps_offset": 1, "timestep_spacing": "leading"},
    "heun": {}, "dpm2": {}, "dpm2-a": {}, "dpm++2m": {}, "dpm++2m-sde": {"algorithm_type": "sde-dpmsolver++"},
    "dpm++2s": {}, "deis": {}, "unipc": {}, "lcm": {}, "tcd": {},
}


def rounded_once(function):
    """A function of a tensor, computed in f64: PyTorch's builds differ by a rounding, and this one is always the same."""
    return lambda x: torch.from_numpy(np.asarray(function(x.double().numpy()), dtype=np.float32))


@contextlib.contextmanager
def rounded():
    names = ("sqrt", "log", "exp", "expm1")
    power, methods, functions = torch.Tensor.__pow__, {}, {}
    for name in names:
        methods[name], functions[name] = getattr(torch.Tensor, name), getattr(torch, name)
        setattr(torch.Tensor, name, rounded_once(getattr(np, name)))
        setattr(torch, name, rounded_once(getattr(np, name)))
    torch.Tensor.__pow__ = lambda x, e: x.sqrt() if isinstance(e, float) and e == 0.5 else power(x, e)
    try:
        yield
    finally:
        torch.Tensor.__pow__ = power
        for name in names:
            setattr(torch.Tensor, name, methods[name])
            setattr(torch, name, functions[name])


def scheduler(sampler, config):
    cls = getattr(diffusers, CLASSES[sampler])
    extra = {}
    algorithm = config.get("algorithm_type", "dpmsolver++")
    if sampler == "dpm++2m-sde" and algorithm != "sde-dpmsolver":
        extra = {"algorithm_type": "sde-dpmsolver++"}
    elif sampler == "dpm++2m" and algorithm.startswith("sde-"):
        extra = {"algorithm_type": algorithm.removeprefix("sde-")}
    return cls.from_config(dict(config), **extra)


def run(sampler, config, steps, seed):
    """The case's entry and tensors; None where diffusers ends in NaN or breaks, which no test can hold a sampler to."""
    # An argument of a pipeline's call, which hands every sampler that takes it 0.
    eta = config.get("eta", 0.0)
    config = {key: value for key, value in config.items() if key != "eta"}
    entry = {"sampler": sampler, "steps": steps, "config": config} | ({"eta": eta} if eta else {})
    generator = torch.Generator().manual_seed(seed)
    draws = []
    try:
        s = scheduler(sampler, config)
        s.set_timesteps(steps)
        module = sys.modules[type(s).__module__]
        real = getattr(module, "randn_tensor", None)

        def spy(*a, **k):
            draws.append(real(*a, **k).float())
            return draws[-1]
        if real:
            module.randn_tensor = spy
        try:
            start = torch.randn((1, 3, 2, 4), generator=generator)
            x, trail = start * s.init_noise_sigma, []
            parameters = inspect.signature(s.step).parameters
            takes = {key: value for key, value in {"generator": generator, "eta": eta}.items() if key in parameters}
            for t in s.timesteps:
                inp = s.scale_model_input(x, t)
                out = 0.3 * inp + 0.05 * torch.cos(torch.as_tensor(t, dtype=torch.float32) / 100)
                x = s.step(out, t, x, **takes).prev_sample
                trail.append(x.float())
        finally:
            if real:
                module.randn_tensor = real
    except (IndexError, AssertionError):
        return None, {}  # It takes the second of two equal first timesteps, and runs past the end.
    except Exception as e:
        return entry | {"refused": f"{type(e).__name__}: {e}"[:200]}, {}
    if not torch.isfinite(torch.stack(trail)).all():
        return None, {}
    tensors = {"timesteps": s.timesteps.float(), "start": start, "trajectory": torch.stack(trail)}
    if hasattr(s, "sigmas"):
        tensors["sigmas"] = torch.as_tensor(s.sigmas).float()
    if draws:
        tensors["noise"] = torch.stack(draws)
    return entry | {"init_noise_sigma": float(s.init_noise_sigma)}, tensors


def accepted(sampler, config):
    """The keys of a config that count for a sampler."""
    keys = inspect.signature(getattr(diffusers, CLASSES[sampler]).__init__).parameters.keys()
    return {k: v for k, v in config.items() if k in keys or k in ("sigma_min", "sigma_max", "eta")}


def cases(everything):
    if everything:
        for sampler, extra in PLAIN.items():
            for prediction in ("epsilon", "v_prediction"):
                for steps in (1, 2, 3, 4, 7, 10, 20, 25, 50):
                    config = SD | {"prediction_type": prediction} | extra
                    yield f"{sampler}.{prediction}.{steps}", sampler, config, steps
    crossed = [(name, sampler, config) for name, config in CROSSED.items() for sampler in CLASSES]
    crossed += [(name, sampler, config) for name, (samplers, config) in SOME.items() for sampler in samplers]
    # After the others, whose numbers of steps and seeds stay as they were.
    crossed.sort(key=lambda case: case[1] == "tcd" or "eta" in case[2])
    seen = set()
    for name, sampler, config in crossed:
        same = (sampler, json.dumps(accepted(sampler, config), sort_keys=True))
        if same in seen:
            continue
        seen.add(same)
        for steps in (1, 2, 3, 4, 7, 10, 20, 25, 50) if everything else ((4, 16, 2, 7, 3, 10, 1, 5)[len(seen) % 8],):
            yield f"{sampler}.{name}.{steps}", sampler, config, steps


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("out"), a.add_argument("--all", action="store_true")
    args = a.parse_args()
    os.makedirs(args.out, exist_ok=True)
    diffusers.logging.set_verbosity_error()
    manifest, tensors, dropped = {}, {}, []
    with rounded(), np.errstate(all="ignore"):
        for seed, (name, sampler, config, steps) in enumerate(cases(args.all)):
            entry, found = run(sampler, config, steps, seed)
            if entry is None:
                dropped.append(name)
                continue
            manifest[name] = entry
            tensors |= {f"{name}.{key}": value.contiguous().clone() for key, value in found.items()}
    save_file(tensors, os.path.join(args.out, "cases.safetensors"))
    with open(os.path.join(args.out, "cases.json"), "w") as f:
        rows = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in manifest.items())
        f.write("{\n" + ",\n".join(rows) + "\n}\n")
    refused = {name: e["refused"] for name, e in manifest.items() if "refused" in e}
    print(f"{len(manifest)} cases, {len(refused)} of them refused; dropped: {dropped}")
    for name, why in refused.items():
        print(name, why)


if __name__ == "__main__":
    main()
