#!/usr/bin/env python3
"""Write the LoRA files of kernels-tests/lora.rs, in every form that trainers write, and what PyTorch computes with them.

    pip install torch diffusers transformers accelerate peft lycoris_lora safetensors
    python make_lora.py                              # writes beside itself, into lora/

The models are those of make_single_file.py, whose weights are functions of their names, and so are the inputs. Each case
changes some modules of each kind by a random file, which is read back as a user would: by diffusers' `load_lora_weights`
where it can (it computes with PEFT, beside the weights), by LyCORIS' own modules, or by PEFT's. What is kept:
    NAME.safetensors       the file, as its library or trainer writes it
    expected.safetensors   CASE.NETWORK: the UNet's output, and the text encoders' pooled ones, in float32
    cases.json             for each case its family, its files with their scales, and its networks
"""
import json
import os
import tempfile

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.training_utils import _collate_lora_metadata
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from make_single_file import FAMILIES, HERE, OUT as SINGLE, fill, tokenizer, unet_key

OUT = os.path.join(HERE, "lora")
TRANSFORMER = "transformer_blocks.0"
# Of each kind of module a few, so that a file stays small.
LINEAR = [f"down_blocks.0.attentions.0.{TRANSFORMER}.attn1.to_q", f"down_blocks.1.attentions.0.{TRANSFORMER}.attn1.to_out.0",
          f"mid_block.attentions.0.{TRANSFORMER}.attn2.to_k", f"up_blocks.1.attentions.1.{TRANSFORMER}.attn2.to_v",
          f"up_blocks.2.attentions.0.{TRANSFORMER}.ff.net.0.proj", f"mid_block.attentions.0.{TRANSFORMER}.ff.net.2"]
CONV = ["down_blocks.1.resnets.0.conv1", "up_blocks.0.resnets.1.conv2", "down_blocks.1.resnets.0.conv_shortcut",
        "down_blocks.0.downsamplers.0.conv", "up_blocks.0.upsamplers.0.conv", "mid_block.attentions.0.proj_in"]
OTHERS = ["mid_block.resnets.1.time_emb_proj", "conv_in", "conv_out", "time_embedding.linear_1"]
# SDXL's small UNet has no transformer at its first level.
SDXL = [f"down_blocks.1.attentions.0.{TRANSFORMER}.attn1.to_q", f"down_blocks.2.attentions.0.{TRANSFORMER}.attn2.to_out.0",
        "down_blocks.2.attentions.0.transformer_blocks.1.ff.net.0.proj", f"mid_block.attentions.0.{TRANSFORMER}.attn2.to_k",
        f"up_blocks.0.attentions.1.{TRANSFORMER}.attn1.to_v", "up_blocks.1.attentions.0.proj_out",
        "down_blocks.2.resnets.0.conv_shortcut", "up_blocks.2.resnets.0.conv1", "mid_block.resnets.1.conv2",
        "up_blocks.1.upsamplers.0.conv", "down_blocks.0.downsamplers.0.conv"]
TEXT = ["encoder.layers.0.self_attn.q_proj", "encoder.layers.1.self_attn.out_proj", "encoder.layers.1.mlp.fc1",
        "encoder.layers.0.mlp.fc2"]

expected, cases = {}, []


def modules(family):
    return {name: fill(name, module) for name, module in FAMILIES[family].modules().items()}


def pipeline(family):
    made, parts = FAMILIES[family], modules(family)
    scheduler, options = made.scheduler
    parts["scheduler"] = scheduler(**options)
    for suffix in ["", "_2"]:
        if f"text_encoder{suffix}" in parts:
            parts[f"tokenizer{suffix}"] = tokenizer("!" if f"text_encoder{suffix}" in made.open_clip else "<|endoftext|>")
    if made.pipeline is not StableDiffusionXLPipeline:
        parts |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    return made.pipeline(**parts)


def outputs(family, parts):
    """The UNet's output and the encoders' pooled ones, for the inputs of make_single_file.py."""
    inputs = load_file(os.path.join(SINGLE, f"{family}.safetensors"))
    given = lambda name: {k.removeprefix(f"{name}.in."): v for k, v in inputs.items() if k.startswith(f"{name}.in.")}
    unet, found = given("unet"), {}
    added = {k: unet.pop(k) for k in ["text_embeds", "time_ids"] if k in unet}
    with torch.no_grad():
        found["unet"] = parts["unet"](unet["sample"], unet["timestep"], unet["encoder_hidden_states"],
                                      added_cond_kwargs=added).sample
        for name in [name for name in parts if name.startswith("text_encoder")]:
            out = parts[name](given(name.replace("_", "-"))["input_ids"])
            found[name] = out.text_embeds if "text_embeds" in out else out.pooler_output
    return found


def random(shape, g, deviation):
    """In f16's precision, in which files are often stored."""
    return (deviation * torch.randn(shape, generator=g)).half().float()


def keep(name, family, used, found):
    """A case, of which the networks that differ from the unchanged ones are kept."""
    plain = outputs(family, modules(family))
    networks = [network for network in found if not torch.equal(plain[network], found[network])]
    assert networks, name
    for network in networks:
        change = (found[network] - plain[network]).norm() / plain[network].norm()
        assert 1e-2 < change < 10, (name, network, change)
        expected[f"{name}.{network}"] = found[network]
    cases.append({"name": name, "family": family, "files": used, "networks": networks})
    print(name, networks)


def write(name, tensors, metadata=None, dtype=torch.float16):
    os.makedirs(OUT, exist_ok=True)
    tensors = {key: value.detach().to(dtype).contiguous().clone() for key, value in tensors.items()}
    save_file(tensors, os.path.join(OUT, f"{name}.safetensors"), metadata)


def through_diffusers(name, family, used):
    """The case as diffusers computes it from these files. One is beside the weights, as users have it; several are merged
    into them one after the other, since transformers 5 makes a text encoder's first adapter anew when it loads a second."""
    pipe = pipeline(family)
    for file, scale in used:
        pipe.load_lora_weights(OUT, weight_name=f"{file}.safetensors", adapter_name=file)
        pipe.set_adapters([file], [scale])
        if len(used) > 1:
            pipe.fuse_lora(components=[key for key in ["unet", "text_encoder"] if hasattr(pipe, key)])
            pipe.unload_lora_weights()
    parts = {key: part for key, part in pipe.components.items() if key == "unet" or key.startswith("text_encoder")}
    keep(name, family, used, outputs(family, parts))


def submodule(parts, component, path):
    """transformers 5 leaves `text_model.` away where nothing else stands beside it."""
    inside = path.split(".")[0] not in dict(parts[component].named_children())
    return parts[component].get_submodule(f"text_model.{path}" if inside else path)


def shapes(module, rank):
    """A LoRA's down and up for a module, kohya's way."""
    n, inputs, *kernel = module.weight.shape
    return (rank, inputs, *kernel), (n, rank, *[1] * len(kernel))


def kohya(name, family, names, prefixes, key):
    """A file with kohya's keys, for these modules of each component. Of one rank and alpha, as kohya's scripts write it:
    diffusers does not find the attention layers of others."""
    g, parts, tensors = torch.Generator().manual_seed(len(name)), modules(family), {}
    for component, own in names.items():
        for path in own:
            down, up = shapes(submodule(parts, component, path), 2)
            start = f"{prefixes[component]}{key(component, path).replace('.', '_')}"
            tensors[f"{start}.lora_down.weight"] = random(down, g, 1 / down[0] ** 0.5)
            tensors[f"{start}.lora_up.weight"] = random(up, g, 0.3)
            tensors[f"{start}.alpha"] = torch.tensor(3.0)
    write(name, tensors)


def peft(family, targets, **more):
    """A pipeline with random PEFT adapters, and what diffusers' `save_lora_weights` is given of each network."""
    pipe, g, states = pipeline(family), torch.Generator().manual_seed(5), {}
    for component, own in targets.items():
        module = getattr(pipe, component)
        module.add_adapter(LoraConfig(r=2, lora_alpha=3, target_modules=own, init_lora_weights="gaussian", **more))
        with torch.no_grad():
            for key, p in module.named_parameters():
                if "lora_A" in key:
                    p.copy_(random(p.shape, g, p.shape[0] ** -0.5))
                elif "lora_B" in key:
                    p.copy_(random(p.shape, g, 0.3))
                elif "lora_magnitude" in key:
                    p.copy_((p * (1 + 0.3 * torch.randn(p.shape, generator=g))).half().float())
        states[component] = get_peft_model_state_dict(module)
    return pipe, states


def save_peft(name, pipe, states, metadata):
    extra = _collate_lora_metadata({key: getattr(pipe, key) for key in states}) if metadata else {}
    with tempfile.TemporaryDirectory() as folder:
        layers = {("unet_lora_layers" if key == "unet" else f"{key}_lora_layers"): state for key, state in states.items()}
        pipe.save_lora_weights(folder, **layers, **extra)
        path = os.path.join(folder, "pytorch_lora_weights.safetensors")
        with safe_open(path, "pt") as file:
            write(name, {key: file.get_tensor(key) for key in file.keys()}, file.metadata())


OLD = {".to_q.lora_A": ".processor.to_q_lora.down", ".to_q.lora_B": ".processor.to_q_lora.up",
       ".to_k.lora_A": ".processor.to_k_lora.down", ".to_k.lora_B": ".processor.to_k_lora.up",
       ".to_v.lora_A": ".processor.to_v_lora.down", ".to_v.lora_B": ".processor.to_v_lora.up",
       ".to_out.0.lora_A": ".processor.to_out_lora.down", ".to_out.0.lora_B": ".processor.to_out_lora.up",
       ".q_proj.lora_A": ".q_proj.lora_linear_layer.down", ".q_proj.lora_B": ".q_proj.lora_linear_layer.up",
       ".out_proj.lora_A": ".to_out_lora.down", ".out_proj.lora_B": ".to_out_lora.up",
       ".lora_A": ".lora.down", ".lora_B": ".lora.up"}


def old_key(key):
    for new, old in OLD.items():
        if new in key:
            return key.replace(new, old)
    return key


def lycoris(name, family, made, scale=1.0):
    """A file of LyCORIS' modules: for each path its class and options. Computed by LyCORIS itself."""
    g, parts, tensors, kept = torch.Generator().manual_seed(7), modules(family), {}, []
    for path, (cls, options) in made.items():
        component = "text_encoder" if path.startswith("encoder") else "unet"
        full = path if component == "unet" else "text_model." + path
        target = submodule(parts, component, path)
        start = ("lora_unet_" if component == "unet" else "lora_te_") + full.replace(".", "_")
        module = cls(start, target, multiplier=scale, **options)
        with torch.no_grad():
            for key, p in module.named_parameters():
                if key in ["dora_scale", "rescale"]:
                    p.copy_((p * (1 + 0.3 * torch.randn(p.shape, generator=g))).half().float())
                else:
                    p.copy_(random(p.shape, g, 0.7 * p.shape[0 if "_b" in key or "down" in key else -1] ** -0.25))
        module.eval().apply_to()
        kept.append(module)
        tensors |= {f"{start}.{key}": value for key, value in module.state_dict().items()}
    write(name, tensors)
    keep(name, family, [[name, scale]], outputs(family, parts))


def peft_lycoris(name, family, config):
    """A file of PEFT's own LoHa or LoKr for a UNet alone, merged by PEFT. PEFT keeps the alpha elsewhere: it is the rank."""
    parts, g = modules(family), torch.Generator().manual_seed(9)
    model = get_peft_model(parts["unet"], config)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "hada_" in key or "lokr_" in key:
                p.copy_(random(p.shape, g, 0.5))
    write(name, get_peft_model_state_dict(model))
    parts["unet"] = model.merge_and_unload()
    keep(name, family, [[name, 1.0]], outputs(family, parts))


def main():
    te = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}
    text = lambda component, path: path if component == "unet" else "text_model." + path
    kohya("kohya", "sd1", {"unet": LINEAR + CONV + OTHERS, "text_encoder": TEXT}, te, text)
    through_diffusers("kohya", "sd1", [["kohya", 0.8]])
    kohya("kohya-sd2", "sd2", {"unet": LINEAR[:4], "text_encoder": TEXT + ["encoder.layers.22.self_attn.v_proj"]}, te, text)
    through_diffusers("kohya-sd2", "sd2", [["kohya-sd2", -0.5]])

    config = FAMILIES["sdxl"].modules()["unet"].config
    original = lambda component, path: (unet_key(path + ".weight", config).removesuffix(".weight") if component == "unet"
                                        else "text_model." + path)
    both = {"unet": SDXL, "text_encoder": TEXT, "text_encoder_2": TEXT}
    kohya("kohya-sdxl", "sdxl", both, te | {"text_encoder": "lora_te1_"}, original)
    through_diffusers("kohya-sdxl", "sdxl", [["kohya-sdxl", 1.0]])

    pipe, states = peft("sd1", {"unet": LINEAR + CONV, "text_encoder": TEXT})
    save_peft("peft", pipe, states, metadata=False)
    through_diffusers("peft", "sd1", [["peft", 0.7]])
    save_peft("peft-alpha", pipe, {"unet": states["unet"]}, metadata=True)
    through_diffusers("peft-alpha", "sd1", [["peft-alpha", 0.7]])
    through_diffusers("several", "sd1", [["peft", 0.4], ["kohya", -0.6]])
    pipe, states = peft("sdxl", both)
    save_peft("peft-sdxl", pipe, states, metadata=True)
    through_diffusers("peft-sdxl", "sdxl", [["peft-sdxl", 0.9]])
    # transformers 5 does not find the lengths of a text encoder's DoRA.
    pipe, states = peft("sd1", {"unet": LINEAR + CONV[:2]}, use_dora=True)
    save_peft("peft-dora", pipe, states, metadata=False)
    through_diffusers("peft-dora", "sd1", [["peft-dora", 0.6]])

    whole = load_file(os.path.join(OUT, "peft.safetensors"))
    old = {key: value for key, value in whole.items() if "attn" in key and "proj_in" not in key}
    write("old", {old_key(key): value for key, value in old.items()})
    through_diffusers("old", "sd1", [["old", 0.7]])

    rank = dict(lora_dim=2, alpha=3)
    lycoris("locon", "sd1", {
        LINEAR[0]: (LoConModule, rank), CONV[0]: (LoConModule, rank | dict(use_tucker=True)),
        CONV[3]: (LoConModule, rank | dict(use_tucker=True)), CONV[2]: (LoConModule, dict(lora_dim=4, alpha=1)),
        TEXT[0]: (LoConModule, dict(lora_dim=3, alpha=8))})
    lycoris("loha", "sd1", {
        LINEAR[0]: (LohaModule, rank), LINEAR[4]: (LohaModule, rank), CONV[0]: (LohaModule, rank),
        CONV[1]: (LohaModule, rank | dict(use_tucker=True)), CONV[5]: (LohaModule, rank), TEXT[2]: (LohaModule, rank)})
    lycoris("lokr", "sd1", {
        LINEAR[0]: (LokrModule, rank), LINEAR[4]: (LokrModule, rank | dict(decompose_both=True, factor=16)),
        LINEAR[1]: (LokrModule, rank | dict(full_matrix=True)), CONV[0]: (LokrModule, rank),
        CONV[1]: (LokrModule, rank | dict(use_tucker=True)), CONV[5]: (LokrModule, rank),
        CONV[3]: (LokrModule, rank | dict(full_matrix=True)), TEXT[2]: (LokrModule, rank)})
    dora = rank | dict(weight_decompose=True)
    by_input = dora | dict(wd_on_out=False)
    lycoris("dora", "sd1", {
        LINEAR[0]: (LoConModule, dora), LINEAR[4]: (LoConModule, by_input), CONV[0]: (LoConModule, dora),
        CONV[1]: (LoConModule, by_input), LINEAR[1]: (LohaModule, dora), CONV[3]: (LokrModule, by_input),
        TEXT[0]: (LoConModule, dora)})
    for name, cls in [("oft", DiagOFTModule), ("boft", ButterflyOFTModule)]:
        lycoris(name, "sd1", {
            LINEAR[0]: (cls, dict(lora_dim=4)), LINEAR[1]: (cls, dict(lora_dim=8, rescaled=True)),
            CONV[0]: (cls, dict(lora_dim=8)), CONV[1]: (cls, dict(lora_dim=4, rescaled=True, constraint=0.0625)),
            CONV[5]: (cls, dict(lora_dim=16)), TEXT[0]: (cls, dict(lora_dim=4))}, scale=0.75)
    peft_lycoris("peft-loha", "sd1", LoHaConfig(r=2, alpha=2, target_modules=[LINEAR[0], CONV[0], CONV[1]],
                                                use_effective_conv2d=True))
    peft_lycoris("peft-lokr", "sd1", LoKrConfig(r=2, alpha=2, target_modules=[LINEAR[0], CONV[0], LINEAR[4]],
                                                use_effective_conv2d=True))
    tidy = {key: value.detach().contiguous().clone() for key, value in expected.items()}
    save_file(tidy, os.path.join(OUT, "expected.safetensors"))
    with open(os.path.join(OUT, "cases.json"), "w") as file:
        json.dump(cases, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
