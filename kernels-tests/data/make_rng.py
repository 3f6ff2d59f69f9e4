#!/usr/bin/env python3
"""Write rng.safetensors: normals of PyTorch's CPU generator, for kernels-tests/rng.rs.

    pip install torch safetensors
    python make_rng.py

Tensor SEED.PLACE.N is the draw number PLACE of N values from one generator of that seed; of more than 128 values, the
first and the last 64 are kept. The file in the repository was made with torch 2.15.0 (AVX512) on an x86-64 machine.
"""
import os

import torch
from safetensors.torch import save_file

SEEDS = (0, 1, 42, 2**31, 2**32 + 5, 2**63, 2**64 - 1)
# Odd numbers of single draws leave one cached, which the blocks between them must not touch.
DRAWS = (1, 2, 3, 15, 16, 17, 31, 1, 33, 100, 384, 5, 1024, 1030, 3, 16384, 7)

tensors = {}
for seed in SEEDS:
    generator = torch.Generator().manual_seed(seed)
    for place, n in enumerate(DRAWS):
        values = torch.randn(n, generator=generator)
        kept = torch.cat([values[:64], values[-64:]]) if n > 128 else values
        tensors[f"{seed}.{place:02}.{n}"] = kept.clone()
save_file(tensors, os.path.join(os.path.dirname(os.path.abspath(__file__)), "rng.safetensors"))
