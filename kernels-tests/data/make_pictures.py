#!/usr/bin/env python3
"""Write the pictures of kernels-tests/pictures.rs: of every kind that people have, and what Pillow reads in them.

    pip install pillow safetensors numpy piexif
    python make_pictures.py        # writes beside itself, into pictures/

What is kept:
    NAME.png|jpg|webp      the file
    expected.safetensors   NAME: its pixels as diffusers' `load_image` has them, `[H, W, 3]`, in float16
"""
import os
import struct
import zlib

import numpy as np
import piexif
import piexif.helper
from PIL import Image, ImageOps
from safetensors.numpy import save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pictures")
TEXT = "a café, 日本\nSteps: 4"


def gradient(width=13, height=9):
    """Another colour in each corner, so that a turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 // (width - 1), y * 255 // (height - 1), 255 - (x + y) * 255 // (width + height - 2)]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8), "RGB")


def deep(path, picture):
    """A PNG of 16 bits a colour, which Pillow does not write."""
    values = np.asarray(picture).astype(">u2") * 256 + 200
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def main():
    os.makedirs(OUT, exist_ok=True)
    rgb, files = gradient(), {}

    def keep(name, picture, **options):
        path = os.path.join(OUT, name)
        deep(path, picture) if name == "deep.png" else picture.save(path, **options)
        read = Image.open(path)
        read = ImageOps.exif_transpose(read).convert("RGB")
        files[name] = np.asarray(read).astype(np.float16)

    keep("rgb.png", rgb)
    keep("grey.png", rgb.convert("L"))
    keep("black-and-white.png", rgb.convert("1"))
    keep("palette.png", rgb.quantize(9))
    keep("transparent-palette.png", rgb.quantize(9), transparency=3)
    alpha = rgb.convert("RGBA")
    alpha.putalpha(rgb.convert("L"))
    keep("alpha.png", alpha)
    keep("grey-alpha.png", alpha.convert("LA"))
    keep("deep.png", rgb)
    keep("grey.jpg", rgb.convert("L"), quality=95)
    keep("rgb.jpg", rgb, quality=95, subsampling=0)
    keep("progressive.jpg", rgb, quality=95, subsampling=0, progressive=True)
    keep("lossless.webp", rgb, lossless=True)
    keep("alpha.webp", alpha, lossless=True, exact=True)
    keep("moving.webp", rgb, lossless=True, save_all=True, append_images=[ImageOps.invert(rgb)])
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        keep(f"turned-{turn}.jpg", rgb, quality=95, subsampling=0, exif=exif)
    for name in ["turned.png", "turned.webp"]:
        exif = Image.Exif()
        exif[0x0112] = 6
        keep(name, rgb, exif=exif, **dict(lossless=True) if name.endswith("webp") else {})
    comment = piexif.helper.UserComment.dump(TEXT, encoding="unicode")
    block = piexif.dump({"Exif": {piexif.ExifIFD.UserComment: comment}})
    keep("parameters.jpg", rgb, quality=95, subsampling=0, exif=block)
    keep("parameters.webp", rgb, lossless=True, exif=block)
    save_file(files, os.path.join(OUT, "expected.safetensors"))


if __name__ == "__main__":
    main()
