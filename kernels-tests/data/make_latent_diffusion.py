#!/usr/bin/env python3
"""Write what kernels-tests/latent_diffusion.rs needs to know of latent diffusion.

    pip install torch diffusers transformers safetensors pillow
    python make_latent_diffusion.py                  # writes beside itself, into latent_diffusion/

Three small models, every parameter moved off its initial value, one for each of diffusers' LDMPipeline,
LDMTextToImagePipeline and LDMSuperResolutionPipeline. For each a model folder with
    <network>.inputs.safetensors, <network>.outputs.safetensors   a pass
    pictures.safetensors      by the names of pictures.json: `<name>.state`, the latents after the last step, NCHW, and
                              of one `ddim.picture`, what the pipeline makes of them, from 0 to 1, NCHW
and small.png, the picture that is enlarged; tokens.json has texts with the ids of transformers' BertTokenizer.
"""
import copy
import json
import os

import numpy
import torch
from diffusers import (AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, LDMSuperResolutionPipeline,
                       LDMTextToImagePipeline, PNDMScheduler, UNet2DConditionModel, UNet2DModel, VQModel)
from diffusers.pipelines.deprecated import LDMPipeline
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from PIL import Image
from safetensors.torch import save_file
from transformers import BertTokenizer

from make_reference import perturb

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "latent_diffusion")
SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear",
                clip_sample=False)
TEXT_SCHEDULE = dict(SCHEDULE, beta_start=0.00085, beta_end=0.012, set_alpha_to_one=False, steps_offset=1)
NARROW = dict(norm_num_groups=4, block_out_channels=(8, 16), layers_per_block=1)
PLAIN = dict(NARROW, out_channels=3, attention_head_dim=4, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
             up_block_types=("AttnUpBlock2D", "UpBlock2D"))
BLOCKS = dict(down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
PROMPT = "A café, two Foxes & 狐"
# Seeds count up from the first for the pictures of a batch.
SEED, BATCH = 7, 2
PICTURES = {
    "unconditional": {"ddim": dict(steps=5), "eta": dict(steps=4, eta=1.0), "euler": dict(steps=4, sampler="euler")},
    "text": {
        "ddim": dict(steps=4, guidance=6.0), "eta": dict(steps=4, guidance=6.0, eta=0.3),
        "alone": dict(steps=4, guidance=1.0), "away": dict(steps=3, guidance=0.5),
        "pndm": dict(steps=5, guidance=3.0, sampler="pndm"), "wide": dict(steps=3, guidance=2.0, width=48, height=24),
    },
    "enlarged": {"ddim": dict(steps=4), "eta": dict(steps=4, eta=1.0), "euler": dict(steps=4, sampler="euler")},
}
SAMPLERS = {"euler": EulerDiscreteScheduler, "pndm": PNDMScheduler}


def vocabulary():
    """A few hundred pieces: letters of several alphabets, alone and inside of words, and some words."""
    letters = "abcdefghijklmnopqrstuvwxyzß0123456789éñabcdefghijklmnopqrstuvwxyzживо狐山日本かな가ا"
    letters = list(dict.fromkeys(letters + "CF"))
    words = "cafe café two fox foxes the of un ##able ##aff ##es ##ing ##s hugging face 狐 resume naive".split()
    words += list("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~¡–—。、") + ["##" + letter for letter in letters] + letters
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(words)]


TEXTS = [
    "", " ", "A café, two Foxes & 狐", "unaffable huggingface", "naïve résumé CAFÉ ÑANDÚ", "日本の山に狐がいる", "日本fox狐two",
    "a" * 99, "a" * 100, "a" * 101, "two " * 80, "x-ray's [MASK] [SEP] [CLS] [PAD] [UNK]", "tabs\tand\nnew\r\nlines\u3000wide",
    "zero\u200bwidth\u00adsoft\u0000null\ufffdreplaced", "e\u0301 cafe\u0301 \u212b \ufb01 ½", "живо ЖИВО", "가 나", "İstanbul ẞ ß",
    "fox🦊fox ¡–—。、…", "$1,234.56 (fox) {two} <the> a|b ~ ^ `", "\U00020000 \u2f800", "اااا", "  the  of  ", "The quick, brown fox; "
    "jumps over the lazy dog. " * 3, "foxes" * 19, "foxes" * 21, "\u00a0fox\u2028two\u2029of",
]


def tokens(tokenizer_folder):
    """Texts under each way to configure the vocabulary."""
    ways = []
    for options in ({}, {"do_lower_case": False}, {"strip_accents": False}, {"strip_accents": True, "do_lower_case": False},
                    {"tokenize_chinese_chars": False}):
        with open(os.path.join(tokenizer_folder, "tokenizer_config.json"), "w") as file:
            json.dump(options, file)
        tokenizer = BertTokenizer.from_pretrained(tokenizer_folder)
        padded = [tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids for text in TEXTS]
        ways.append({"options": options, "cases": [dict(text=text, ids=tokenizer(text).input_ids, padded=ids)
                                                   for text, ids in zip(TEXTS, padded)]})
    with open(os.path.join(tokenizer_folder, "tokenizer_config.json"), "w") as file:
        json.dump({"do_lower_case": True, "tokenizer_class": "BertTokenizer"}, file)
    with open(os.path.join(OUT, "tokens.json"), "w", encoding="utf-8") as file:
        json.dump(ways, file, ensure_ascii=True)


def tokenizer():
    folder = os.path.join(OUT, "text", "tokenizer")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as file:
        file.write("\n".join(vocabulary()) + "\n")
    tokens(folder)
    return BertTokenizer.from_pretrained(folder)


def vq(generator, **more):
    """A codebook whose entries are as far apart as latents are, so that rounding chooses no other entry."""
    config = dict(NARROW, **BLOCKS, latent_channels=3, num_vq_embeddings=24)
    model = perturb(VQModel(**dict(config, **more)), generator)
    model.quantize.embedding.weight.data = 4 * torch.randn(model.quantize.embedding.weight.shape, generator=generator)
    return rounded(model)


def rounded(model):
    """The same with parameters that f16 holds, as they are saved."""
    for parameter in model.parameters():
        parameter.data = parameter.half().float()
    return model


def save(model, folder):
    copy.deepcopy(model).half().save_pretrained(folder)


def passes(folder, name, inputs, outputs):
    save_file({key: value.contiguous() for key, value in inputs.items()},
              os.path.join(folder, f"{name}.inputs.safetensors"))
    save_file({key: value.contiguous() for key, value in outputs.items()},
              os.path.join(folder, f"{name}.outputs.safetensors"))


def vq_passes(folder, vqvae, generator):
    sample = torch.rand(2, 3, 10, 14, generator=generator) * 2 - 1
    passes(folder, "vqvae-encoder", {"sample": sample}, {"latents": vqvae.encode(sample).latents})
    z = 3 * torch.randn(2, vqvae.quantize.vq_embed_dim, 5, 7, generator=generator)
    passes(folder, "vqvae-decoder", {"z": z}, {"sample": vqvae.decode(z).sample})


def draw(folder, which, make, call):
    """The pictures of one model: `make` gives the pipeline for a scheduler, `call` its arguments for a case."""
    made = {}
    for name, case in PICTURES[which].items():
        schedule = TEXT_SCHEDULE if which == "text" else SCHEDULE
        if case.get("sampler"):
            taken = {key: value for key, value in schedule.items() if key not in ("clip_sample", "set_alpha_to_one")}
            scheduler = SAMPLERS[case["sampler"]](**taken)
        else:
            scheduler = DDIMScheduler(**schedule)
        pipe = make(scheduler)
        pipe.set_progress_bar_config(disable=True)
        states, pictures = [], []
        decode = pipe.vqvae.decode

        def spy(latents, *args, **kwargs):
            states.append(latents)
            return decode(latents, *args, **kwargs)
        pipe.vqvae.decode = spy
        for seed in range(SEED, SEED + (1 if which == "enlarged" else BATCH)):
            # Steps with noise draw from the global generator, whatever the pipeline is given.
            torch.manual_seed(seed)
            eta = {"eta": case["eta"]} if "eta" in case else {}
            image = pipe(num_inference_steps=case["steps"], output_type="np", **eta, **call(case)).images
            pictures.append(torch.from_numpy(numpy.asarray(image)).permute(0, 3, 1, 2))
        pipe.vqvae.decode = decode
        scaling = 1.0 if which == "enlarged" else pipe.vqvae.config.scaling_factor
        made[f"{name}.state"] = torch.cat(states) * scaling
        if name == "ddim":
            made[f"{name}.picture"] = torch.cat(pictures).float()
    save_file({key: value.contiguous() for key, value in made.items()}, os.path.join(folder, "pictures.safetensors"))


def index(folder, class_name, schedule):
    with open(os.path.join(folder, "model_index.json"), "w") as file:
        json.dump({"_class_name": class_name}, file)
    os.makedirs(os.path.join(folder, "scheduler"), exist_ok=True)
    with open(os.path.join(folder, "scheduler", "scheduler_config.json"), "w") as file:
        json.dump(dict(schedule, _class_name="DDIMScheduler"), file, indent=1)


def unconditional(generator):
    folder = os.path.join(OUT, "unconditional")
    vqvae = vq(generator)
    unet = rounded(perturb(UNet2DModel(sample_size=8, in_channels=3, **PLAIN), generator))
    save(vqvae, os.path.join(folder, "vqvae"))
    save(unet, os.path.join(folder, "unet"))
    vq_passes(folder, vqvae, generator)
    index(folder, "LDMPipeline", SCHEDULE)
    draw(folder, "unconditional", lambda scheduler: LDMPipeline(vqvae=vqvae, unet=unet, scheduler=scheduler), lambda _: {})


def text(generator):
    folder = os.path.join(OUT, "text")
    tokenize = tokenizer()
    config = LDMBertConfig(vocab_size=len(tokenize), d_model=24, encoder_layers=2, encoder_ffn_dim=48,
                           encoder_attention_heads=4, head_dim=8, architectures=["LDMBertModel"])
    bert = rounded(perturb(LDMBertModel(config), generator))
    save(bert, os.path.join(folder, "bert"))
    ids = torch.randint(0, len(tokenize), (2, 11), generator=generator)
    passes(folder, "bert", {"input_ids": ids}, {"last_hidden_state": bert(ids)[0]})
    # 8 pixels to a latent, as the pipeline takes for granted.
    vae = rounded(perturb(AutoencoderKL(
        latent_channels=4, norm_num_groups=8, block_out_channels=(8, 8, 16, 16), layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4), generator))
    save(vae, os.path.join(folder, "vqvae"))
    unet = rounded(perturb(UNet2DConditionModel(
        sample_size=4, cross_attention_dim=24, attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **NARROW), generator))
    save(unet, os.path.join(folder, "unet"))
    index(folder, "LDMTextToImagePipeline", TEXT_SCHEDULE)

    def call(case):
        size = {key: case[key] for key in ("width", "height") if key in case}
        return dict(prompt=PROMPT, guidance_scale=case["guidance"], **size)
    draw(folder, "text", lambda scheduler: LDMTextToImagePipeline(
        vqvae=vae, bert=bert, tokenizer=tokenize, unet=unet, scheduler=scheduler), call)


def enlarged(generator):
    folder = os.path.join(OUT, "enlarged")
    vqvae = vq(generator, vq_embed_dim=3, latent_channels=5, mid_block_add_attention=False, num_vq_embeddings=40)
    unet = rounded(perturb(UNet2DModel(sample_size=8, in_channels=6, **PLAIN), generator))
    save(vqvae, os.path.join(folder, "vqvae"))
    save(unet, os.path.join(folder, "unet"))
    vq_passes(folder, vqvae, generator)
    index(folder, "LDMSuperResolutionPipeline", SCHEDULE)
    y, x = numpy.mgrid[0:35, 0:70]
    small = numpy.stack([x * 3 % 256, y * 5 % 256, (x * y) % 256], axis=-1).astype(numpy.uint8)
    small = Image.fromarray(small)
    small.save(os.path.join(folder, "small.png"))
    draw(folder, "enlarged", lambda scheduler: LDMSuperResolutionPipeline(vqvae=vqvae, unet=unet, scheduler=scheduler),
         lambda _: dict(image=small))


@torch.no_grad()
def main():
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    for make in (unconditional, text, enlarged):
        os.makedirs(os.path.join(OUT, make.__name__), exist_ok=True)
        make(generator)
    with open(os.path.join(OUT, "pictures.json"), "w") as file:
        json.dump(PICTURES, file, indent=1)


if __name__ == "__main__":
    main()
