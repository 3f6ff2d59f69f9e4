"""Makes the seeds that fuzzing begins with: `python3 fuzz/seeds.py`, no packages needed.

Each is a small file of its kind that is read to the end. Files of crashes that were found stand beside them under names
that begin with `found-`, and are left alone.
"""

import json
import struct
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "fuzz/seeds"
DATA = ROOT / "kernels-tests/data"
BUILT_IN = ROOT / "assets/demo-model"
SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "BOOL": 1}


def write(target, name, content):
    path = SEEDS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def product(shape):
    count = 1
    for n in shape:
        count *= n
    return count


def values(size):
    """Bytes that are small finite numbers in every element type."""
    return bytes(i * 7 % 61 for i in range(size))


def safetensors(tensors, metadata=None):
    """`tensors`: name -> (element type, shape)."""
    header, end = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + product(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(header)) + header + values(end)


def gguf(tensors, keys=(), alignment=32):
    """`tensors`: name -> (ggml's number of the type, shape as PyTorch has it, bytes); `keys`: bytes of each."""
    text = lambda text: struct.pack("<Q", len(text)) + text.encode()
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys)
    offset = 0
    for name, (kind, shape, size) in tensors.items():
        out += text(name) + struct.pack("<I", len(shape))
        out += b"".join(struct.pack("<Q", n) for n in reversed(shape)) + struct.pack("<IQ", kind, offset)
        offset += -(-size // alignment) * alignment
    return out + bytes(-len(out) % alignment) + values(offset)


def key(name, kind, value):
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value


CLIP = "text_model.encoder.layers.0."


def text_encoder(width=8, tokens=4, prefix=""):
    """A whole one: a single layer, so narrow that it is small."""
    tensors = {
        "text_model.embeddings.token_embedding.weight": [16, width],
        "text_model.embeddings.position_embedding.weight": [tokens, width],
        "text_model.final_layer_norm.weight": [width],
        "text_model.final_layer_norm.bias": [width],
    }
    for name, shape in [("mlp.fc1", [16, width]), ("mlp.fc2", [width, 16])] + [
        (f"self_attn.{part}_proj", [width, width]) for part in ["q", "k", "v", "out"]
    ]:
        tensors[f"{CLIP}{name}.weight"], tensors[f"{CLIP}{name}.bias"] = shape, shape[:1]
    for norm in ["layer_norm1", "layer_norm2"]:
        tensors[f"{CLIP}{norm}.weight"], tensors[f"{CLIP}{norm}.bias"] = [width], [width]
    return {prefix + name: ("F16", shape) for name, shape in tensors.items()}


def names_alone(start, names):
    """Tensors that have the dimensions that count, and no elements."""
    return {start + name: ("F16", [32, 32, 0, 3] if name.endswith("weight") else [32]) for name in names}


UNET = ["input_blocks.0.0.weight", "input_blocks.1.0.in_layers.2.weight", "input_blocks.1.1.proj_in.weight"]
UNET += ["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", "input_blocks.2.0.op.weight"]
UNET += ["input_blocks.3.0.in_layers.2.weight", "middle_block.0.in_layers.2.weight", "middle_block.1.norm.bias"]
UNET += ["output_blocks.0.0.in_layers.2.weight", "output_blocks.1.1.conv.weight", "out.2.weight"]
VAE = ["encoder.conv_in.weight", "encoder.down.0.block.0.conv1.weight", "encoder.down.1.block.0.conv1.weight"]
VAE += ["decoder.up.1.block.1.nin_shortcut.weight", "decoder.mid.attn_1.q.weight", "decoder.conv_out.weight"]
OPEN_CLIP = ["token_embedding.weight", "positional_embedding", "transformer.resblocks.0.attn.in_proj_weight"]
OPEN_CLIP += ["transformer.resblocks.0.mlp.c_fc.weight", "ln_final.weight", "text_projection"]
HINT = ["input_hint_block.0.weight", "input_hint_block.2.weight", "zero_convs.0.0.weight", "middle_block_out.0.weight"]


def files_of_tensors():
    plain = {"a": ("F32", [2, 3]), "b": ("BF16", [4]), "c": ("I64", []), "d": ("I32", [1, 0, 2]), "e": ("F16", [1])}
    write("safetensors", "types", safetensors(plain, {"format": "pt", "modelspec.title": "x"}))
    write("safetensors", "unknown-types", safetensors({"a": ("F8_E4M3", [3]), "b": ("BOOL", [2]), "c": ("F32", [1])}))
    write("safetensors", "empty", safetensors({}))
    write("safetensors", "values", (DATA / "single/values.safetensors").read_bytes())

    write("gguf", "quantized", (DATA / "single/quantized.gguf").read_bytes())
    kinds = {0: (1, 4), 1: (1, 2), 2: (32, 18), 6: (32, 22), 8: (32, 34), 12: (256, 144), 14: (256, 210), 26: (1, 4)}
    tensors = {f"t{kind}": (kind, [2, n], 2 * size) for kind, (n, size) in kinds.items()}
    shape = struct.pack("<IQ4i", 5, 4, 2, 2, 1, 1)
    keys = [key("general.alignment", 4, struct.pack("<I", 64)), key("comfy.gguf.orig_shape.t0", 9, shape)]
    keys += [key("x", 9, struct.pack("<IQQ2s", 8, 1, 2, b"ab")), key("y", 7, b"\1")]
    write("gguf", "every-type", gguf(tensors | {"t0": (0, [4, 1], 16)}, keys, 64))
    write("gguf", "unknown-type", gguf({"t10": (10, [256], 84)}))
    encoder = {}
    for name, (_, shape) in text_encoder(width=32).items():
        in_blocks = len(shape) == 2 and shape[1] == 32
        size = product(shape) // 32 * 18 if in_blocks else 2 * product(shape)
        encoder[name] = (2 if in_blocks else 1, shape, size)
    write("gguf", "text-encoder", gguf(encoder))
    write("gguf", "third", gguf({
        "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight": (8, [96, 32], 96 * 34),
        "cond_stage_model.model.text_projection": (8, [32, 32], 32 * 34),
    }))


def checkpoints():
    write("checkpoint", "text-encoder", safetensors(text_encoder()))
    whole = names_alone("model.diffusion_model.", UNET) | names_alone("first_stage_model.", VAE)
    whole |= text_encoder(prefix="cond_stage_model.transformer.") | {"global_step": ("I64", []), "v_pred": ("F32", [0])}
    write("checkpoint", "sd1", safetensors(whole, {"modelspec.resolution": "512x512"}))
    sd2 = names_alone("model.diffusion_model.", UNET) | names_alone("cond_stage_model.model.", OPEN_CLIP)
    sd2["model.diffusion_model.input_blocks.1.1.proj_in.weight"] = ("F16", [0, 32])
    write("checkpoint", "sd2", safetensors(sd2, {"modelspec.prediction_type": "v"}))
    sdxl = names_alone("model.diffusion_model.", [name for name in UNET if not name.startswith("input_blocks.1.1")])
    sdxl |= names_alone("conditioner.embedders.1.model.", OPEN_CLIP)
    sdxl |= {"model.diffusion_model.label_emb.0.0.weight": ("F16", [0, 2816])}
    sdxl |= names_alone("model.diffusion_model.", ["input_blocks.3.1.proj_in.weight"])
    write("checkpoint", "sdxl", safetensors(sdxl))
    write("checkpoint", "controlnet", safetensors(names_alone("control_model.", HINT + UNET[:8])))
    write("checkpoint", "vae", safetensors(names_alone("", VAE + ["decoder.conv_in.weight", "quant_conv.bias"])))
    write("checkpoint", "other", safetensors({"joint_blocks.0.x": ("F16", [1])}))


def loras():
    q, conv = "text_model.encoder.layers.0.self_attn.q_proj", "down_blocks.0.resnets.0.conv1"
    k, up = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k", "up_blocks.2.resnets.0.conv_shortcut"
    kohya = lambda start, module: start + module.replace(".", "_")
    half = lambda tensors: {name: ("F16", shape) for name, shape in tensors.items()}
    te, unet = kohya("lora_te_", q), kohya("lora_unet_", conv)
    write("lora", "kohya", safetensors(half({
        f"{te}.alpha": [], f"{te}.lora_down.weight": [1, 128], f"{te}.lora_up.weight": [128, 1],
        f"{unet}.lora_down.weight": [1, 32, 3, 3], f"{unet}.lora_up.weight": [32, 1, 1, 1],
    })))
    write("lora", "core", safetensors(half({
        f"{unet}.lora_down.weight": [2, 32, 1, 1], f"{unet}.lora_mid.weight": [2, 2, 3, 3],
        f"{unet}.lora_up.weight": [32, 2, 1, 1], f"{unet}.dora_scale": [1, 32, 1, 1],
    })))
    write("lora", "loha", safetensors(half({
        f"{unet}.hada_w1_a": [2, 32], f"{unet}.hada_w1_b": [2, 32], f"{unet}.hada_t1": [2, 2, 3, 3],
        f"{unet}.hada_w2_a": [2, 32], f"{unet}.hada_w2_b": [2, 32], f"{unet}.hada_t2": [2, 2, 3, 3],
    })))
    shortcut = kohya("lora_unet_", up)
    write("lora", "lokr", safetensors(half({
        f"{shortcut}.lokr_w1": [4, 4], f"{shortcut}.lokr_w2_a": [8, 1], f"{shortcut}.lokr_w2_b": [1, 24],
        f"{te}.lokr_w1": [8, 8], f"{te}.lokr_w2": [16, 16], f"{te}.alpha": [1],
    })))
    metadata = {"text_encoder.lora_alpha": 2, "unet.alpha_pattern": {"attn2.to_k": 3}, "unet.use_rslora": True}
    peft = half({
        f"unet.{k}.lora_A.weight": [1, 128], f"unet.{k}.lora_B.weight": [128, 1],
        f"unet.{k}.lora_magnitude_vector": [128],
        f"text_encoder.{q}.lora_A.weight": [1, 128], f"text_encoder.{q}.lora_B.weight": [128, 1],
    })
    write("lora", "peft", safetensors(peft, {"lora_adapter_metadata": json.dumps(metadata)}))


def embeddings():
    for name in ["learned", "sd-style", "several", "xl-style"]:
        write("embedding", name, (DATA / f"prompts/{name}.safetensors").read_bytes())


def texts():
    configs = {
        "unet": BUILT_IN / "unet/config.json",
        "unet-sdxl": DATA / "cases/sdxl/unet/config.json",
        "vae": BUILT_IN / "vae/config.json",
        "taesd": DATA / "cases/taesd/vae/config.json",
        "clip": BUILT_IN / "text_encoder/config.json",
        "clip-sdxl": DATA / "cases/sdxl/text_encoder_2/config.json",
        "scheduler": BUILT_IN / "scheduler/scheduler_config.json",
    }
    configs = {name: json.dumps(json.loads(path.read_text()), separators=(",", ":")) for name, path in configs.items()}
    controlnet = {"_class_name": "ControlNetModel", "block_out_channels": [32, 64], "cross_attention_dim": 40}
    controlnet |= {"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "conditioning_embedding_out_channels": [16, 32]}
    controlnet |= {"layers_per_block": [1, 2], "transformer_layers_per_block": [[2], 1], "sample_size": [8, 9]}
    configs["controlnet"] = json.dumps(controlnet)
    for name, text in configs.items():
        write("json", name, text)
    samplers = json.loads((DATA / "samplers/crossed/cases.json").read_text())
    keys = {}
    for case in samplers if isinstance(samplers, list) else samplers.values():
        keys |= case.get("config", {}) if isinstance(case, dict) else {}
    keys |= {"use_exponential_sigmas": False, "use_karras_sigmas": False, "steps_offset": 0}
    write("json", "every-sampler-key", json.dumps(keys))
    betas = {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3, "timestep_spacing": "trailing"}
    write("json", "betas", json.dumps(betas | {"prediction_type": "v_prediction", "lambda_min_clipped": float("-inf")}))

    index = json.dumps({"_class_name": "StableDiffusionPipeline"})
    section = lambda name, text: f"=== {name}\n{text}\n"
    parts = {"unet": "unet", "vae": "vae", "text_encoder": "clip"}
    folder = section("model_index.json", index) + section("scheduler/scheduler_config.json", configs["scheduler"])
    shards = json.dumps({"weight_map": {"conv_in.weight": "s-1.safetensors", "conv_out.weight": "../x"}})
    for part, config in parts.items():
        folder += section(f"{part}/config.json", configs[config])
    write("folder", "model", folder)
    shards = section("unet/diffusion_pytorch_model.safetensors.index.json", shards) + section("unet/s-1.safetensors", "x")
    write("folder", "shards", section("unet/config.json", "{}") + shards)
    write("folder", "controlnet", section("config.json", configs["controlnet"]))
    tokenizers(section)


def tokenizers(section):
    symbols = [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["!", ",", "Ġ", "Ã", "©"]
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g"), ("dog", "s</w>")]
    tokens = symbols + [symbol + "</w>" for symbol in symbols] + [a + b for a, b in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    lines = "#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in merges)
    config = {"model_max_length": 77, "pad_token": {"content": "!", "lstrip": True}, "bos_token": "<|startoftext|>"}
    files = section("vocab.json", json.dumps(vocabulary)) + section("merges.txt", lines)
    files += section("tokenizer_config.json", json.dumps(config))
    files += section("special_tokens_map.json", json.dumps({"unk_token": "<|endoftext|>"}))
    files += section("added_tokens.json", json.dumps({"<cat-toy>": len(tokens)}))
    write("tokenizer", "two-files", files + section("text", "Cats, 2 dogs <cat-toy> é!"))
    one = {"model": {"type": "BPE", "vocab": vocabulary, "merges": ["c a", ["ca", "t</w>"]]}}
    one["added_tokens"] = [{"id": 3, "content": "dog", "single_word": True, "normalized": False, "special": False}]
    decoder = {"added_tokens_decoder": {"5": {"content": "<x>", "rstrip": True, "special": True}}, "unk_token": "a"}
    files = section("tokenizer.json", json.dumps(one)) + section("tokenizer_config.json", json.dumps(decoder))
    write("tokenizer", "one-file", files + section("text", "it's <x> dog dogs <|endoftext|>"))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, colour, rows, more=b"", interlaced=0):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pictures():
    rows = lambda n, size: b"".join(bytes([i % 5]) + values(size) for i in range(n))
    text = chunk(b"tEXt", b"parameters\0a red circle\nSteps: 25")
    write("picture", "rgb", png(5, 5, 8, 2, rows(5, 15), text))
    write("picture", "rgba16", png(2, 3, 16, 6, rows(3, 16)))
    write("picture", "grey1", png(9, 2, 1, 0, rows(2, 2), chunk(b"tRNS", b"\0\1")))
    palette = chunk(b"PLTE", values(12)) + chunk(b"tRNS", b"\0\x80")
    write("picture", "palette", png(4, 2, 2, 3, b"\0\x1b\0\xe4", palette))
    write("picture", "interlaced", png(3, 3, 8, 4, b"".join(b"\0" + values(2 * n) for n in [1, 1, 2, 1, 1, 3]), b"", 1))
    packed = b"parameters\0\1\0en\0\0" + zlib.compress("a red circle 日本".encode())
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(values(40))) + chunk(b"zTXt", b"y\0\0" + zlib.compress(b"z"))
    write("picture", "packed-text", png(1, 1, 8, 0, b"\0\7", profile + chunk(b"iTXt", packed)))
    for name in ["parameters.jpg", "progressive.jpg", "parameters.webp", "moving.webp"]:
        write("picture", name, (DATA / "pictures" / name).read_bytes())


def prompts():
    cases = json.loads((DATA / "prompts/cases.json").read_text())
    texts = {case["prompt"] for case in cases if len(case["prompt"]) < 120} | {
        "a cat <lora:style v2:0.8>, <lyco:x:te=0.5:unet=0.25> (red:1.2) <lora:a:1:2>",
        "(a (b:2) c) [d] \\(e\\) BREAK f BREAK, (g [h) i] :1.2) (j: -.5 )",
        "&embedding a, b, c, d, e, f, g, h",
    }
    for i, text in enumerate(sorted(texts)):
        write("prompt", f"{i:02}", text)


def answers():
    """What a hub may say: `status from size`, the headers, and the body."""
    size, body = 33, b"the weights of a very small model"
    cases = {
        "whole": ("200", 0, {"Content-Length": size}, body),
        "rest": ("206", 10, {"Content-Range": "bytes 10-32/33", "Content-Length": 23}, body[10:]),
        "some-of-the-rest": ("206", 10, {"Content-Range": "bytes 10-19/*"}, body[10:20]),
        "other-range": ("206", 10, {"Content-Range": "bytes 0-32/33"}, body),
        "many-ranges": ("206", 10, {"Content-Type": "multipart/byteranges; boundary=x"}, b"--x\r\n"),
        "too-long": ("200", 0, {"Content-Type": "application/octet-stream"}, body * 2),
        "packed": ("200", 0, {"Content-Encoding": "gzip"}, zlib.compress(body)),
        "page": ("200", 0, {"Content-Length": 15}, b"<!DOCTYPE html>"),
        "pointer": ("200", 0, {}, b"version https://git-lfs.github.com/spec/v1\n"),
        "busy": ("429", 0, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, b""),
        "busy-for-seconds": ("503", 5, {"Retry-After": 120}, b""),
    }
    for name, (status, start, headers, content) in cases.items():
        lines = "".join(f"{key}: {value}\n" for key, value in headers.items())
        write("fetch", name, f"{status} {start} {size}\n{lines}\n".encode() + content)


if __name__ == "__main__":
    files_of_tensors()
    checkpoints()
    loras()
    embeddings()
    texts()
    pictures()
    prompts()
    answers()
