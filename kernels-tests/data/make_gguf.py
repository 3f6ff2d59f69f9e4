#!/usr/bin/env python3
"""Write blocks of every kind of quantised weights that is read, and what the gguf package makes of them.

    pip install gguf safetensors
    python make_gguf.py      # writes beside itself: single/{blocks,quantized}.gguf, single/{blocks,values}.safetensors
"""
import os

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Q, GGUFWriter, dequantize, quantize
from safetensors.numpy import save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "single")
# Where a block has its numbers in f16, which random bytes would often make infinite.
HALVES = {Q.Q4_0: [0], Q.Q5_0: [0], Q.Q8_0: [0], Q.Q4_K: [0, 2], Q.Q6_K: [208]}
# What came to be read later, whose blocks are behind the others so that those stay as they are.
LATER = {Q.Q4_1: [0, 2], Q.Q5_1: [0, 2], Q.Q2_K: [80, 82], Q.Q3_K: [108], Q.Q5_K: [0, 2], Q.IQ4_NL: [0], Q.IQ4_XS: [0]}


def main():
    g = np.random.default_rng(1)
    writer, wanted = GGUFWriter(os.path.join(OUT, "blocks.gguf"), "sd1"), {}
    add_blocks(g, writer, wanted, HALVES)
    half = g.normal(0, 1, (2, 3, 1, 5)).astype(np.float16)
    writer.add_tensor("f16", half)
    wanted["f16"] = half.astype(np.float32)
    # A convolution as a matrix, as quantisers that know no convolutions store it.
    matrix = g.normal(0, 1, (4, 9)).astype(np.float32)
    writer.add_tensor("conv", matrix)
    writer.add_array("comfy.gguf.orig_shape.conv", [4, 1, 3, 3])
    wanted["conv"] = matrix.reshape(4, 1, 3, 3)
    add_blocks(g, writer, wanted, LATER)
    # Of this kind the package has no dequantisation: a scale in f32, whole numbers, and sums that nothing reads.
    numbers, scales = g.integers(-127, 128, (6, 256), dtype=np.int8), g.normal(0, 0.1, (6, 1)).astype(np.float32)
    blocks = np.concatenate([scales.view(np.uint8), numbers.view(np.uint8), np.zeros((6, 32), np.uint8)], axis=1)
    writer.add_tensor("q8_k", blocks.reshape(3, -1), raw_dtype=Q.Q8_K)
    wanted["q8_k"] = (scales * numbers).reshape(3, 512)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(wanted, os.path.join(OUT, "blocks.safetensors"))


def add_blocks(g, writer, wanted, kinds):
    for kind, places in kinds.items():
        elements, size = GGML_QUANT_SIZES[kind]
        blocks = g.integers(0, 256, (6, size), dtype=np.uint8)
        for place in places:
            blocks[:, place:place + 2] = g.normal(0, 0.1, (6, 1)).astype(np.float16).view(np.uint8)
        rows = blocks.reshape(3, 2 * size)
        writer.add_tensor(kind.name.lower(), rows, raw_dtype=kind)
        wanted[kind.name.lower()] = dequantize(rows, kind).astype(np.float32).reshape(3, 2 * elements)


def quantized():
    """Values, and the blocks that the package makes of them."""
    g = np.random.default_rng(2)
    values = g.normal(0, 1, (4, 96)).astype(np.float32)
    values[1, :32] = 0
    values[2, 40] = -30
    writer = GGUFWriter(os.path.join(OUT, "quantized.gguf"), "sd1")
    for kind in (Q.Q8_0, Q.Q4_0):
        writer.add_tensor(kind.name.lower(), quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file({"values": values}, os.path.join(OUT, "values.safetensors"))


if __name__ == "__main__":
    main()
    quantized()
