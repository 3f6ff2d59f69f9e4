#!/usr/bin/env python3
"""Write what kernels-tests/checkpoints.rs needs to know of checkpoints in the original key layout.

    pip install torch diffusers transformers accelerate safetensors
    python make_single_file.py                       # writes beside itself, into single/
    python make_single_file.py --full sd15 OUT.safetensors   # or sdxl: random weights of the real shapes, in f16,
                                                     # with OUT.inputs.safetensors and OUT.outputs.safetensors of a step

For each family a small diffusers pipeline is made, its weights a function of their names alone (the one of
src/weights/synthetic.rs, rounded so that f32, f16 and bf16 hold the same values), and written as one file by the inverse
of diffusers' key map. diffusers' own `from_single_file` then has to give the same pipeline back. What is kept:
    FAMILY.json.gz      for every tensor of the file its shape, and which tensors of the pipeline are in it; the
                        pipeline's configurations
    FAMILY.safetensors  inputs and outputs of every network, computed by PyTorch in float32
"""
import argparse
import gzip
import json
import os
import sys
import tempfile

import numpy as np
import torch
from diffusers import (AutoencoderKL, DDIMScheduler, DDPMScheduler, EulerAncestralDiscreteScheduler,
                       EulerDiscreteScheduler, PNDMScheduler, StableDiffusionInpaintPipeline,
                       StableDiffusionInstructPix2PixPipeline, StableDiffusionPipeline, StableDiffusionUpscalePipeline,
                       StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel)
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "single")
MERGES = os.path.join(HERE, "..", "..", "assets", "clip", "merges.txt.gz")
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
CROSS, PLAIN = "CrossAttn{}Block2D", "{}Block2D"


def synthetic(name, shape):
    """The tensor of this name, as `Synthetic` of src/weights makes it, in bf16's precision."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = (np.uint64(seed) ^ np.arange(n, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    uniform = (z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    if len(shape) < 2:
        centre, deviation = (1.0 if name.endswith(".weight") else 0.0), np.float32(0.02)
    elif "embedding.weight" in name:
        centre, deviation = 0.0, np.float32(0.5)
    else:
        centre, deviation = 0.0, np.float32(1) / np.sqrt(np.float32(n // shape[0]))
    values = np.float32(centre) + deviation * np.sqrt(np.float32(3)) * uniform
    return torch.from_numpy(values.astype(np.float16)).reshape(shape).bfloat16().float()


def canonical(component, name):
    """transformers 5 leaves `text_model.` away where nothing else stands beside it."""
    bare = component.startswith("text_encoder") and not name.startswith(("text_model.", "text_projection"))
    return "text_model." + name if bare else name


def fill(component, module):
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(synthetic(f"{component}.{canonical(component, name)}", tuple(p.shape)))
    return module.eval()


# The inverse of diffusers' key map: a tensor's name in the original file, and which part of that tensor it is.

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
UNET = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2", "conv_norm_out": "out.0",
        "conv_out": "out.2", "class_embedding": "label_emb"}


def unet_key(name, config):
    module, kind = name.rsplit(".", 1)
    if module in UNET:
        return f"{UNET[module]}.{kind}"
    part = name.split(".")
    per_block = config.layers_per_block + 1
    if part[0] == "mid_block":
        number = 1 if part[1] == "attentions" else 2 * int(part[2])
        rest = ".".join(part[3:]) if part[1] == "attentions" else f"{RESNET[part[3]]}.{kind}"
        return f"middle_block.{number}.{rest}"
    block, way = int(part[1]), part[0]
    if part[2] == "downsamplers":
        return f"input_blocks.{(block + 1) * per_block}.0.op.{kind}"
    if part[2] == "upsamplers":
        after = 2 if "CrossAttn" in config.up_block_types[block] else 1
        return f"output_blocks.{block * per_block + per_block - 1}.{after}.conv.{kind}"
    layer = block * per_block + int(part[3]) + (way == "down_blocks")
    rest = ".".join(part[4:]) if part[2] == "attentions" else f"{RESNET[part[4]]}.{kind}"
    side = "input_blocks" if way == "down_blocks" else "output_blocks"
    return f"{side}.{layer}.{int(part[2] == 'attentions')}.{rest}"


VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}


def vae_key(name, config):
    part, kind = name.split("."), name.rsplit(".", 1)[1]
    if len(part) < 4:
        return name.replace("conv_norm_out", "norm_out")
    if part[1] == "mid_block":
        if part[2] == "attentions":
            return f"{part[0]}.mid.attn_1.{VAE_ATTENTION[part[4]]}.{kind}"
        return f"{part[0]}.mid.block_{int(part[3]) + 1}.{part[4].replace('conv_shortcut', 'nin_shortcut')}.{kind}"
    way, level = part[1].split("_")[0], int(part[2])
    level = len(config.block_out_channels) - 1 - level if way == "up" else level
    if part[3] in ("downsamplers", "upsamplers"):
        return f"{part[0]}.{way}.{level}.{way}sample.conv.{kind}"
    return f"{part[0]}.{way}.{level}.block.{part[4]}.{part[5].replace('conv_shortcut', 'nin_shortcut')}.{kind}"


OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}


def open_clip_key(name):
    """Its key, and which third of that tensor it is or that it is its transpose."""
    fixed = {"text_model.embeddings.token_embedding.weight": "token_embedding.weight",
             "text_model.embeddings.position_embedding.weight": "positional_embedding",
             "text_model.final_layer_norm.weight": "ln_final.weight", "text_model.final_layer_norm.bias": "ln_final.bias"}
    if name in fixed:
        return fixed[name], None
    if name == "text_projection.weight":
        return "text_projection", "transposed"
    layer, rest = name.removeprefix("text_model.encoder.layers.").split(".", 1)
    module, kind = rest.rsplit(".", 1)
    for third, part in enumerate("qkv"):
        if module == f"self_attn.{part}_proj":
            return f"transformer.resblocks.{layer}.attn.in_proj_{kind}", third
    return f"transformer.resblocks.{layer}.{OPEN_CLIP[module]}.{kind}", None


def original(modules, prefixes, open_clip):
    """The file's keys: for each [component, names of its tensors, how they lie in it, shape]."""
    keys = {}
    for component, module in modules.items():
        for name, p in module.named_parameters():
            name, shape, how = canonical(component, name), list(p.shape), "whole"
            if component == "unet":
                key = unet_key(name, module.config)
            elif component == "vae":
                key = vae_key(name, module.config)
                if ".attentions." in name and len(shape) == 2:
                    shape += [1, 1]
            elif component in open_clip:
                key, part = open_clip_key(name)
                if part == "transposed":
                    how, shape = part, shape[::-1]
                elif part is not None:
                    how, shape = "thirds", [3 * shape[0], *shape[1:]]
            else:
                key = name
            entry = keys.setdefault(prefixes[component] + key, [component, [], how, shape])
            entry[1].append(name)
    for entry in keys.values():
        # q, k, v, whatever the order of a module's parameters.
        entry[1].sort(key=lambda name: "qkv".find(name.rsplit(".", 2)[1][0]))
    return keys


def assemble(keys, get):
    """The file's tensors, from those of the pipeline that `get` gives by component and name."""
    tensors = {}
    for key, (component, names, how, shape) in keys.items():
        parts = [get(component, name) for name in names]
        whole = torch.cat(parts) if how == "thirds" else parts[0].T if how == "transposed" else parts[0]
        tensors[key] = whole.reshape(shape).contiguous()
    return tensors


def text_config(hidden, layers, act, proj=None, heads=None):
    return CLIPTextConfig(vocab_size=49408, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
                          num_attention_heads=heads or hidden // 64, hidden_act=act, max_position_embeddings=77,
                          projection_dim=proj or hidden, bos_token_id=49406, eos_token_id=2, pad_token_id=1)


def unet_config(channels, cross, heads, layers, depths, sample_size, **more):
    down = [(CROSS if depth else PLAIN).format("Down") for depth in depths]
    up = [(CROSS if depth else PLAIN).format("Up") for depth in reversed(depths)]
    return dict(block_out_channels=channels, cross_attention_dim=cross, attention_head_dim=heads, layers_per_block=layers,
                transformer_layers_per_block=[depth or 1 for depth in depths], down_block_types=down, up_block_types=up,
                sample_size=sample_size, **more)


def sdxl_added(pooled, ids=6):
    return dict(use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=pooled + ids * 256)


def vae_config(channels, layers, scaling):
    n = len(channels)
    return dict(block_out_channels=channels, layers_per_block=layers, down_block_types=("DownEncoderBlock2D",) * n,
                up_block_types=("UpDecoderBlock2D",) * n, scaling_factor=scaling)


SD1_PREFIX = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model.transformer."}
SD2_PREFIX = SD1_PREFIX | {"text_encoder": "cond_stage_model.model."}
SDXL_PREFIX = SD1_PREFIX | {"text_encoder": "conditioner.embedders.0.transformer.",
                            "text_encoder_2": "conditioner.embedders.1.model."}
REFINER_PREFIX = SD1_PREFIX | {"text_encoder_2": "conditioner.embedders.0.model."}
PNDM = (PNDMScheduler, dict(skip_prk_steps=True, set_alpha_to_one=False, **BETAS))
# The keys of the scheduler_config.json that are published with each family, by its class: some are of other classes, and
# what is not there takes the default of the class that reads it.
SHARED = BETAS | dict(num_train_timesteps=1000, clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True)
PUBLISHED = {
    PNDMScheduler: SHARED,
    DDIMScheduler: SHARED | dict(prediction_type="v_prediction"),
    EulerDiscreteScheduler: SHARED | dict(prediction_type="epsilon", timestep_spacing="leading",
                                          interpolation_type="linear", sample_max_value=1.0),
    EulerAncestralDiscreteScheduler: SHARED,
}
UPSCALER_BETAS = dict(beta_start=0.0001, beta_end=0.02, beta_schedule="scaled_linear")
UPSCALER_NOISE = UPSCALER_BETAS | dict(num_train_timesteps=1000, clip_sample=True, prediction_type="epsilon",
                                       variance_type="fixed_small")
SMALL_VAE = (32, 64, 64)


class Family:
    def __init__(self, pipeline, prefixes, texts, unet, vae, scheduler, open_clip=(), metadata=None, extra_text_layers=0,
                 published=None, more=None):
        self.pipeline, self.prefixes, self.texts, self.open_clip = pipeline, prefixes, texts, open_clip
        self.unet, self.vae, self.scheduler, self.metadata = unet, vae, scheduler, metadata or {}
        self.extra_text_layers = extra_text_layers
        self.published = published or PUBLISHED.get(scheduler[0])
        # Other schedulers of the pipeline, by component.
        self.more = more or {}

    def modules(self):
        texts = {name: cls(config) for name, (cls, config) in self.texts.items()}
        return texts | {"unet": UNet2DConditionModel(**self.unet), "vae": AutoencoderKL(**self.vae)}

    def keys(self, modules):
        keys = original(modules, self.prefixes, self.open_clip)
        if self.extra_text_layers:
            # Stable Diffusion 2's files hold a last layer and a projection that nobody reads.
            prefix, layers = self.prefixes["text_encoder"], modules["text_encoder"].config.num_hidden_layers
            last = f"{prefix}transformer.resblocks.{layers - 1}."
            unread = {key.replace(last, f"{prefix}transformer.resblocks.{layers}."): value for key, value in keys.items()
                      if key.startswith(last)}
            width = modules["text_encoder"].config.hidden_size
            name = "text_model.encoder.layers.0.self_attn.out_proj.weight"
            keys |= unread | {f"{prefix}text_projection": ["text_encoder", [name], "whole", [width, width]]}
        return keys


INPAINT = dict(in_channels=9)
FAMILIES = {
    "sd1": Family(StableDiffusionPipeline, SD1_PREFIX, {"text_encoder": (CLIPTextModel, text_config(128, 2, "quick_gelu"))},
                  unet_config((32, 64, 64, 64), 128, 8, 1, [1, 1, 1, 0], 64), vae_config(SMALL_VAE, 1, 0.18215), PNDM),
    "sd1-inpaint": Family(StableDiffusionInpaintPipeline, SD1_PREFIX,
                          {"text_encoder": (CLIPTextModel, text_config(128, 2, "quick_gelu"))},
                          unet_config((32, 64, 64, 64), 128, 8, 1, [1, 1, 1, 0], 64, **INPAINT),
                          vae_config(SMALL_VAE, 1, 0.18215), PNDM),
    "sd2": Family(StableDiffusionPipeline, SD2_PREFIX, {"text_encoder": (CLIPTextModel, text_config(128, 23, "gelu"))},
                  unet_config((64, 64, 128, 128), 128, [1, 1, 2, 2], 2, [1, 1, 1, 0], 96, use_linear_projection=True),
                  vae_config(SMALL_VAE, 2, 0.18215),
                  (DDIMScheduler, dict(clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction", **BETAS)),
                  open_clip=("text_encoder",), metadata={"modelspec.prediction_type": "v"}, extra_text_layers=1),
    "sdxl": Family(StableDiffusionXLPipeline, SDXL_PREFIX,
                   {"text_encoder": (CLIPTextModel, text_config(64, 2, "quick_gelu")),
                    "text_encoder_2": (CLIPTextModelWithProjection, text_config(128, 3, "gelu", proj=96))},
                   unet_config((64, 64, 128), 192, [1, 1, 2], 1, [0, 1, 2], 128, **sdxl_added(96)),
                   vae_config(SMALL_VAE, 1, 0.13025), (EulerDiscreteScheduler, dict(timestep_spacing="leading", **BETAS)),
                   open_clip=("text_encoder_2",)),
    # diffusers knows it by the tenth layer of its text encoder.
    "sdxl-refiner": Family(StableDiffusionXLImg2ImgPipeline, REFINER_PREFIX,
                           {"text_encoder_2": (CLIPTextModelWithProjection, text_config(128, 10, "gelu", proj=128))},
                           unet_config((64, 64, 128, 128), 128, [1, 1, 2, 2], 1, [0, 1, 1, 0], 128, **sdxl_added(128, 5))
                           | dict(transformer_layers_per_block=2),
                           vae_config(SMALL_VAE, 1, 0.13025),
                           (EulerDiscreteScheduler, dict(timestep_spacing="leading", **BETAS)),
                           open_clip=("text_encoder_2",)),
    "pix2pix": Family(StableDiffusionInstructPix2PixPipeline, SD1_PREFIX,
                      {"text_encoder": (CLIPTextModel, text_config(128, 2, "quick_gelu"))},
                      unet_config((32, 64, 64, 64), 128, 8, 1, [1, 1, 1, 0], 64, in_channels=8),
                      vae_config(SMALL_VAE, 1, 0.18215),
                      (EulerAncestralDiscreteScheduler, BETAS)),
    # As in the published one, the last level's channels are as many as the text's.
    "x4": Family(StableDiffusionUpscalePipeline, SD2_PREFIX, {"text_encoder": (CLIPTextModel, text_config(128, 23, "gelu"))},
                 unet_config((32, 64, 64, 128), 128, 8, 1, [0, 1, 1, 1], 128, in_channels=7, num_class_embeds=1000,
                             only_cross_attention=[True, True, True, False], use_linear_projection=True),
                 vae_config(SMALL_VAE, 1, 0.08333),
                 (DDIMScheduler, dict(clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction",
                                      steps_offset=1, **UPSCALER_BETAS)),
                 open_clip=("text_encoder",), extra_text_layers=1,
                 published=SHARED | UPSCALER_BETAS | dict(prediction_type="v_prediction"),
                 more={"low_res_scheduler": (DDPMScheduler, UPSCALER_NOISE)}),
}
REAL_VAE = (128, 256, 512, 512)
FULL = {
    "sd15": Family(StableDiffusionPipeline, SD1_PREFIX,
                   {"text_encoder": (CLIPTextModel, text_config(768, 12, "quick_gelu"))},
                   unet_config((320, 640, 1280, 1280), 768, 8, 2, [1, 1, 1, 0], 64), vae_config(REAL_VAE, 2, 0.18215), PNDM),
    "sdxl": Family(StableDiffusionXLPipeline, SDXL_PREFIX,
                   {"text_encoder": (CLIPTextModel, text_config(768, 12, "quick_gelu")),
                    "text_encoder_2": (CLIPTextModelWithProjection, text_config(1280, 32, "gelu", proj=1280))},
                   unet_config((320, 640, 1280), 2048, [5, 10, 20], 2, [0, 2, 10], 128, **sdxl_added(1280)),
                   vae_config(REAL_VAE, 2, 0.13025), (EulerDiscreteScheduler, dict(timestep_spacing="leading", **BETAS)),
                   open_clip=("text_encoder_2",)),
}


def tokenizer(pad):
    with tempfile.TemporaryDirectory() as folder:
        text = gzip.open(MERGES).read().decode()
        merges = text.strip().split("\n")[1:]
        printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        symbols = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
        vocab = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in merges]
        vocab += ["<|startoftext|>", "<|endoftext|>"]
        json.dump({s: i for i, s in enumerate(vocab)}, open(os.path.join(folder, "vocab.json"), "w"))
        open(os.path.join(folder, "merges.txt"), "w").write(text)
        return CLIPTokenizer(os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt"), pad_token=pad,
                             model_max_length=77)


def others(family):
    return {component: scheduler(**options) for component, (scheduler, options) in family.more.items()}


def confirm(family, modules, file):
    """diffusers must read the same pipeline from the file that the file was made of."""
    scheduler, options = family.scheduler
    parts = modules | {"scheduler": scheduler(**options)} | others(family)
    for suffix in ["", "_2"]:
        if f"text_encoder{suffix}" in modules:
            pad = "!" if f"text_encoder{suffix}" in family.open_clip else "<|endoftext|>"
            parts[f"tokenizer{suffix}"] = tokenizer(pad)
    if family.pipeline is StableDiffusionXLImg2ImgPipeline:
        parts |= dict(text_encoder=None, tokenizer=None, requires_aesthetics_score=True)
    elif family.pipeline not in (StableDiffusionXLPipeline, StableDiffusionUpscalePipeline):
        parts |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    with tempfile.TemporaryDirectory() as folder:
        # Configurations alone, so that every weight is the file's.
        pipeline = family.pipeline(**parts)
        pipeline.save_pretrained(folder)
        for place, _, names in os.walk(folder):
            for name in names:
                if name.endswith(".safetensors"):
                    os.remove(os.path.join(place, name))
        read = family.pipeline.from_single_file(file, config=folder, local_files_only=True, torch_dtype=torch.float32)
    for name, module in modules.items():
        want, got = module.state_dict(), getattr(read, name).state_dict()
        assert want.keys() == got.keys(), (name, want.keys() ^ got.keys())
        for key, tensor in want.items():
            assert torch.equal(tensor, got[key]), (name, key)


def forward(modules, g, size, unet_only=False):
    """Inputs and outputs of every network, by `component.in.name` and `component.out.name`."""
    found = {}

    def put(component, inputs, outputs):
        found.update({f"{component}.in.{k}": v for k, v in inputs.items()})
        found.update({f"{component}.out.{k}": v for k, v in outputs.items()})

    unet, vae = modules["unet"], modules["vae"]
    c = unet.config
    inputs = {"sample": torch.randn((2, c.in_channels, *size), generator=g), "timestep": torch.tensor([801, 21]),
              "encoder_hidden_states": torch.randn((2, 77, c.cross_attention_dim), generator=g)}
    added, labels = {}, {}
    if c.num_class_embeds:
        labels["class_labels"] = torch.tensor([20, 350])
    if c.addition_embed_type:
        refines = c.projection_class_embeddings_input_dim == c.cross_attention_dim + 5 * 256
        ids = [1024.0, 768.0, 0.0, 16.0, *([6.0] if refines else [1024.0, 1024.0])]
        width = c.projection_class_embeddings_input_dim - len(ids) * 256
        added["text_embeds"] = torch.randn((2, width), generator=g)
        added["time_ids"] = torch.tensor([ids] * 2)
    with torch.no_grad():
        y = unet(*inputs.values(), added_cond_kwargs=added, **labels).sample
        put("unet", inputs | added | labels, {"sample": y})
        if unet_only:
            return found
        z = torch.randn((1, 4, 8, 12), generator=g)
        put("vae-decoder", {"z": z}, {"sample": vae.decode(z).sample})
        image = torch.randn((1, 3, 32, 48), generator=g).clamp(-1, 1)
        dist = vae.encode(image).latent_dist
        put("vae-encoder", {"sample": image}, {"mean": dist.mean, "logvar": dist.logvar})
        for name in [name for name in modules if name.startswith("text")]:
            ids = torch.randint(0, 49406, (1, 77), generator=g)
            ids[:, 0], ids[:, 9:] = 49406, 49407
            out = modules[name](ids, output_hidden_states=True)
            pooled = {"text_embeds": out.text_embeds} if "text_embeds" in out else {"pooler_output": out.pooler_output}
            put(name.replace("_", "-"), {"input_ids": ids},
                pooled | {"last_hidden_state": out.last_hidden_state, "penultimate_hidden_state": out.hidden_states[-2]})
    return found


def tidy(tensors):
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}


def small(name, family):
    modules = {component: fill(component, module) for component, module in family.modules().items()}
    keys = family.keys(modules)
    states = {component: {canonical(component, n): p for n, p in module.named_parameters()}
              for component, module in modules.items()}
    tensors = assemble(keys, lambda component, tensor: states[component][tensor].detach())
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model.safetensors")
        save_file(tidy(tensors), file)
        confirm(family, modules, file)
    scheduler, _ = family.scheduler
    configs = {component: json.loads(module.config.to_json_string()) if component.startswith("text")
               else dict(module.config) for component, module in modules.items()}
    for component in configs:
        if component.startswith("text"):
            configs[component]["architectures"] = [type(modules[component]).__name__]
    configs["scheduler"] = family.published | {"_class_name": scheduler.__name__}
    configs |= {component: options | {"_class_name": cls.__name__} for component, (cls, options) in family.more.items()}
    doc = {"tensors": keys, "configs": configs, "metadata": family.metadata}
    text = json.dumps(doc, separators=(",", ":"), default=list, sort_keys=True)
    with open(os.path.join(OUT, f"{name}.json.gz"), "wb") as f:
        f.write(gzip.compress(text.encode(), 9, mtime=0))
    g = torch.Generator().manual_seed(1)
    save_file(tidy(forward(modules, g, (8, 12))), os.path.join(OUT, f"{name}.safetensors"))
    print("wrote", name, len(keys), "tensors,", sum(t.numel() for t in tensors.values()), "parameters")


def full(name, path):
    family, g = FULL[name], torch.Generator().manual_seed(1)
    with torch.device("meta"):
        modules = family.modules()
    shapes = {component: {canonical(component, n): p.shape for n, p in module.named_parameters()}
              for component, module in modules.items()}

    def random(component, tensor):
        shape = shapes[component][tensor]
        noise = torch.randn(shape, generator=g)
        if len(shape) < 2:
            return (noise.mul_(0.1) + float(tensor.endswith(".weight"))).half()
        return noise.mul_(0.5 if "embedding" in tensor else shape[1:].numel() ** -0.5).half()

    tensors = assemble(family.keys(modules), random)
    save_file(tensors, path)
    print("wrote", path, sum(t.numel() for t in tensors.values()), "parameters")
    del tensors
    unet = modules["unet"]
    with safe_open(path, "pt") as file:
        key = lambda name: family.prefixes["unet"] + unet_key(name, unet.config)
        state = {name: file.get_tensor(key(name)).float() for name, _ in unet.named_parameters()}
    unet.load_state_dict(state, assign=True)
    del state
    found = forward({"unet": unet.eval(), "vae": None}, g, (16, 16), unet_only=True)
    for way, end in [("in", "inputs"), ("out", "outputs")]:
        start = f"unet.{way}."
        part = {k.removeprefix(start): v for k, v in found.items() if k.startswith(start)}
        save_file(tidy(part), f"{path.removesuffix('.safetensors')}.{end}.safetensors")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--full", nargs=2, metavar=("FAMILY", "FILE"))
    a.add_argument("--only", nargs="+", metavar="FAMILY", default=list(FAMILIES))
    args = a.parse_args()
    if args.full:
        return full(*args.full)
    os.makedirs(OUT, exist_ok=True)
    for name in args.only:
        small(name, FAMILIES[name])


if __name__ == "__main__":
    sys.exit(main())
