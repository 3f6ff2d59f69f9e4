#!/usr/bin/env python3
"""Write trajectories of the samplers that are k-diffusion's or ComfyUI's, for kernels-tests/samplers.rs.

    pip install torch diffusers scipy safetensors torchsde torchdiffeq
    pip install --no-deps k-diffusion
    python make_published.py OUT_DIR

`sample_dpmpp_sde` and `sample_dpmpp_3m_sde` are run as k-diffusion has them; the others are here by their formulas: iPNDM
(Zhang and Chen 2022, as in diff-sampler), RES (Zhang et al. 2023, https://arxiv.org/abs/2308.02157), ER-SDE-Solver-3 (Cui et
al. 2023, https://arxiv.org/abs/2309.06169) and CFG++ (Chung et al. 2024, https://arxiv.org/abs/2406.08070), with the choices
of ComfyUI's samplers of these names. Sigmas and timesteps are those of diffusers' EulerDiscreteScheduler; arithmetic on them
and on the latents is in f64. Noise is of the generator that made the start, one draw after the other, where k-diffusion would
take it from a Brownian tree. Some cases of dpm++sde are diffusers' DPMSolverSDEScheduler with such noise.

The files are those of make_samplers.py. A case with `guidance` has a second denoiser for the prediction without a text,
0.2 * x - 0.1 * sin(t / 50). Made with diffusers 0.42.1, torch 2.15.0 and k-diffusion 0.1.1.post1.
"""
import contextlib
import importlib.machinery
import json
import math
import os
import sys
import types

import diffusers
import numpy as np
import torch
from diffusers.schedulers import scheduling_dpmsolver_sde
from safetensors.torch import save_file

import make_samplers as kit
import make_schedules

# The package's own __init__ imports what training needs.
spec = importlib.machinery.PathFinder.find_spec("k_diffusion")
package = types.ModuleType("k_diffusion")
package.__path__ = spec.submodule_search_locations
package.utils = types.ModuleType("k_diffusion.utils")
package.utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
sys.modules |= {"k_diffusion": package, "k_diffusion.utils": package.utils}
from k_diffusion import sampling  # noqa: E402

STEPS = (1, 2, 3, 5, 20, 150)
MODEL = kit.SD | dict(clip_sample=False)
CONFIGS = {"epsilon": MODEL, "v": MODEL | kit.VP,
           "zero-snr": MODEL | kit.VP | dict(rescale_betas_zero_snr=True, timestep_spacing="trailing")}
EDM = dict(_class_name="EDMEulerScheduler", sigma_max=60.0, sigma_data=0.7)
EDM_MULTI = dict(_class_name="EDMDPMSolverMultistepScheduler")
GUIDANCE = 0.6


def ipndm(model, x, sigmas, noise):
    slopes = []
    for i, (now, after) in enumerate(zip(sigmas, sigmas[1:])):
        picture = model(x, now)
        slopes = [(x - picture) / now] + slopes[:3]
        weights = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]][len(slopes) - 1]
        x = picture if after == 0 else x + (after - now) * sum(w * s for w, s in zip(weights, slopes))
    return x


def res_multistep(model, x, sigmas, noise):
    phi_1 = lambda t: math.expm1(t) / t
    phi_2 = lambda t: (phi_1(t) - 1) / t
    before = None
    for i, (now, after) in enumerate(zip(sigmas, sigmas[1:])):
        picture = model(x, now)
        if before is None or after == 0:
            x = x + (x - picture) / now * (after - now)
        else:
            h = math.log(now / after)
            c = -math.log(sigmas[i - 1] / now) / h
            x = math.exp(-h) * x + h * ((phi_1(-h) - phi_2(-h) / c) * picture + phi_2(-h) / c * before)
        before = picture
    return x


def er_sde(model, x, sigmas, noise):
    scale = lambda sigma: sigma * (np.exp(sigma ** 0.3) + 10)
    before = slope_before = None
    for i, (now, after) in enumerate(zip(sigmas, sigmas[1:])):
        picture = model(x, now)
        if after == 0:
            return picture
        ratio = scale(after) / scale(now)
        points = after + np.arange(200) * (now - after) / 200
        integral = lambda f: np.sum(f / scale(points)) * (now - after) / 200
        x = ratio * x + (1 - ratio) * picture
        if before is not None:
            slope = (picture - before) / (now - sigmas[i - 1])
            x = x + (after - now + integral(1) * scale(after)) * slope
            if slope_before is not None:
                second = (slope - slope_before) / ((now - sigmas[i - 2]) / 2)
                x = x + ((after - now) ** 2 / 2 + integral(points - now) * scale(after)) * second
            slope_before = slope
        before = picture
        x = x + noise(now, after) * math.sqrt(max(after ** 2 - now ** 2 * ratio ** 2, 0))
    return x


def euler_cfg_pp(model, x, sigmas, noise):
    for now, after in zip(sigmas, sigmas[1:]):
        guided, unguided = model(x, now)
        x = guided + after * (x - unguided) / now
    return x


def k_diffusion(sample):
    def run(model, x, sigmas, noise):
        if len(sigmas) == 2:  # sample_dpmpp_3m_sde breaks off after a first step that is the last.
            return model(x, sigmas[0])
        sigmas = torch.tensor(sigmas, dtype=torch.float64)
        return sample(lambda x, sigma: model(x, float(sigma[0])), x, sigmas, noise_sampler=noise, disable=True)
    return run


SAMPLERS = {"dpm++sde": k_diffusion(sampling.sample_dpmpp_sde), "dpm++3m-sde": k_diffusion(sampling.sample_dpmpp_3m_sde),
            "ipndm": ipndm, "res-multistep": res_multistep, "er-sde": er_sde, "euler-cfg++": euler_cfg_pp}


def laddered(config, steps, schedule):
    """A scheduler of these sigmas, and what a sigma between two of them is the timestep of."""
    if config.get("_class_name") == EDM["_class_name"]:
        own = diffusers.EDMEulerScheduler.from_config(config)
        own.set_timesteps(steps)
        return own, None
    key = {None: {}, "simple": {"use_exponential_sigmas": True}}.get(schedule, {f"use_{schedule}_sigmas": True})
    own = diffusers.EulerDiscreteScheduler.from_config(config | key)
    if schedule == "simple":
        own._convert_to_exponential = lambda *args, **more: make_schedules.LISTS["simple"](steps)
    own.set_timesteps(steps)
    logs = np.log((((1 - own.alphas_cumprod) / own.alphas_cumprod) ** 0.5).numpy())
    return own, lambda sigma: float(own._sigma_to_t(np.float64(sigma), logs))


def run(sampler, config, steps, schedule, seed):
    own, between = laddered(config, steps, schedule)
    sigmas = [float(sigma) for sigma in own.sigmas]
    times = {sigma: float(t) for sigma, t in zip(sigmas, own.timesteps)}
    timesteps, trail, draws = [], [], []
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn((1, 1, 1, 3), generator=generator)

    def noise(*_):
        draws.append(torch.randn(start.shape, generator=generator))
        return draws[-1].double()

    def model(x, sigma):
        nearest = min(sigmas, key=lambda other: abs(other - sigma))
        t = times[nearest] if abs(nearest - sigma) < 1e-9 * sigma else between(sigma)
        t = float(np.float32(t))
        trail.append(x)
        timesteps.append(t)
        data = config.get("sigma_data", 1)
        seen = x / math.sqrt(sigma ** 2 + data ** 2)
        outputs = [0.3 * seen + 0.05 * math.cos(t / 100)]
        if sampler == "euler-cfg++":
            other = 0.2 * seen - 0.1 * math.sin(t / 50)
            outputs = [other + GUIDANCE * (outputs[0] - other), other]
        if "sigma_data" in config:
            variance, sign = sigma ** 2 + data ** 2, -1 if "prediction_type" in config else 1
            pictures = [data ** 2 / variance * x + sign * sigma * data / math.sqrt(variance) * output for output in outputs]
        elif config.get("prediction_type") == "v_prediction":
            pictures = [x / (sigma ** 2 + 1) - output * sigma / math.sqrt(sigma ** 2 + 1) for output in outputs]
        else:
            pictures = [x - sigma * output for output in outputs]
        return pictures if len(pictures) > 1 else pictures[0]

    last = SAMPLERS[sampler](model, start.double() * float(own.init_noise_sigma), sigmas, noise)
    trail = [*trail[1:], last]
    listed = own.sigmas
    if sampler == "dpm++sde":
        listed = torch.cat([listed[:1], listed[1:-1].repeat_interleave(2), listed[-1:]])
    tensors = {"timesteps": torch.tensor(timesteps), "start": start, "trajectory": torch.stack(trail).float(), "sigmas": listed}
    if draws:
        tensors["noise"] = torch.stack(draws)
    entry = {"sampler": sampler, "steps": steps, "config": config, "init_noise_sigma": float(own.init_noise_sigma)}
    entry |= {"guidance": GUIDANCE} if sampler == "euler-cfg++" else {}
    return entry | ({"schedule": schedule} if schedule else {}), tensors


@contextlib.contextmanager
def independent_noise(seed):
    """DPMSolverSDEScheduler with noise of a generator; yields the draws."""
    draws, generator = [], torch.Generator().manual_seed(seed)

    class Sampler:
        def __init__(self, x, *_):
            self.shape = x.shape

        def __call__(self, *_):
            draws.append(torch.randn(self.shape, generator=generator))
            return draws[-1]

    real = scheduling_dpmsolver_sde.BrownianTreeNoiseSampler
    scheduling_dpmsolver_sde.BrownianTreeNoiseSampler = Sampler
    try:
        yield draws
    finally:
        scheduling_dpmsolver_sde.BrownianTreeNoiseSampler = real


def main(out):
    os.makedirs(out, exist_ok=True)
    manifest, tensors = {}, {}

    def add(name, entry, found):
        manifest[name] = entry
        tensors.update({f"{name}.{key}": value.contiguous().clone() for key, value in found.items()})

    jobs = [(sampler, label, config, steps, None) for sampler in SAMPLERS for label, config in CONFIGS.items()
            for steps in STEPS]
    jobs += [(sampler, schedule, MODEL if i % 2 else CONFIGS["v"], (5, 20, 3)[i], schedule) for sampler in SAMPLERS
             for i, schedule in enumerate(("karras", "exponential", "simple"))]
    jobs += [(sampler, label, EDM | more, steps, None) for sampler in SAMPLERS if sampler != "dpm++sde"
             for label, more, steps in (("edm", {}, 20), ("edm-v", kit.VP, 5))]
    for seed, (sampler, label, config, steps, schedule) in enumerate(jobs):
        add(f"{sampler}.{label}.{steps}", *run(sampler, config, steps, schedule, seed))
    kit.CLASSES["dpm++sde"] = "DPMSolverSDEScheduler"
    own = {"leading": MODEL | dict(timestep_spacing="leading", steps_offset=1), "trailing-v": CONFIGS["v"] | dict(
        timestep_spacing="trailing"), "own-karras": MODEL | dict(use_karras_sigmas=True, sigma_min=0.05, sigma_max=10.0),
        "empty": {}, "own-exponential": MODEL | dict(use_exponential_sigmas=True, sigma_min=0.05, sigma_max=10.0)}
    for seed, (label, config) in enumerate(own.items()):
        with kit.rounded(), independent_noise(seed) as draws:
            entry, found = kit.run("dpm++sde", config, (7, 10, 5, 16, 7)[seed], 1000 + seed)
        add(f"dpm++sde.{label}.diffusers", entry, found | {"noise": torch.stack(draws)})
    kit.CLASSES |= {"euler": "EDMEulerScheduler"} | dict.fromkeys(kit.MULTI, "EDMDPMSolverMultistepScheduler")
    stochastic = dict(algorithm_type="sde-dpmsolver++")
    own = [("euler", "epsilon", {}, 20), ("euler", "v", EDM | kit.VP, 5), ("euler", "one", {}, 1), ("euler", "two", EDM, 2),
           ("euler", "exponential", EDM | dict(sigma_schedule="exponential", final_sigmas_type="sigma_min"), 3),
           ("euler", "many", kit.VP, 150), ("dpm++2m", "epsilon", {}, 20), ("dpm++2m", "v", EDM | kit.VP, 5),
           ("dpm++2m", "one", {}, 1), ("dpm++2m", "two", EDM, 2), ("dpm++2m", "many", {}, 150),
           ("dpm++2m", "order-3", dict(solver_order=3, rho=5.0), 16), ("dpm++2m", "heun", dict(solver_type="heun"), 7),
           ("dpm++2m", "exponential", dict(sigma_schedule="exponential", final_sigmas_type="sigma_min"), 3),
           ("dpm++2m-sde", "epsilon", stochastic, 20), ("dpm++2m-sde", "heun-v", stochastic | kit.VP | dict(
               solver_type="heun", euler_at_final=True), 5)]
    for seed, (sampler, label, config, steps) in enumerate(own):
        config = EDM_MULTI | config | {"_class_name": kit.CLASSES[sampler]}
        with kit.rounded():
            entry, found = kit.run(sampler, config, steps, 2000 + seed)
        add(f"{sampler}.edm-{label}.{steps}", entry, found)
    save_file(tensors, os.path.join(out, "cases.safetensors"))
    with open(os.path.join(out, "cases.json"), "w") as f:
        rows = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in manifest.items())
        f.write("{\n" + ",\n".join(rows) + "\n}\n")
    print(len(manifest), "cases")


if __name__ == "__main__":
    main(sys.argv[1])
