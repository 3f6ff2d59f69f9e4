#!/usr/bin/env python3
"""Write prompts and the embeddings that condition a UNet on them, for kernels-tests/prompts.rs.

    pip install torch diffusers transformers safetensors
    python make_prompts.py

Writes beside itself, into prompts/, two sets of small random text encoders for the built-in model's vocabulary (`sd`,
`sdxl`), textual inversion files, `cases.json` and `expected.safetensors`, and in `parsed.json` how random prompts are taken
apart; in `edited.safetensors` the built-in model's latents for prompts that change from step to step, drawn by diffusers
with other embeddings handed to it between the steps; and into cases/sd1/ a pass of its UNet over 154 tokens.

Prompts in the syntax `plain` are encoded by diffusers' own pipelines, with `load_textual_inversion`. Those in `weighted` by
the functions below, which were written from the description of AUTOMATIC1111's web UI 1.10 (its wiki and the comments of
its modules `prompt_parser`, `sd_hijack_clip` and `sd_emphasis`), in another way than src/prompt.rs: with one pattern and one
stack, hidden states taken by hooks, and textual inversion put in place of the embedding layer's output. The files in the
repository were made with torch 2.15.0, diffusers 0.42.1 and transformers 5.23.0.
"""
import json
import os
import random
import re

import torch
from diffusers import (AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline,
                       UNet2DConditionModel)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from make_reference import half_round, pair, perturb, text_config

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "prompts")
VOCABULARY = os.path.join(HERE, "..", "..", "assets", "demo-model", "tokenizer")


# The web UI's way from a text to weighted pieces.

def tokens_of(text):
    """('text', t), ('(',), ('weight', w), .."""
    pattern = re.compile(r"\\([()\[\]\\])|(\\)|([(\[\])])|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|([^\\()\[\]:]+)|(:)")
    for m in pattern.finditer(text):
        escaped, lone, bracket, weight, words, colon = m.groups()
        if escaped:
            yield "text", escaped, None
        elif lone:
            yield "text", "", None
        elif bracket:
            yield bracket, bracket, None
        elif weight:
            yield "weight", m.group(0), float(weight)
        else:
            yield "words", words or colon, None


def pieces_of(text):
    """[text, weight] or None for BREAK. Brackets that are not closed reach to the end, others are text."""
    out, stack = [], []

    def scale(entry, factor):
        for piece in out[entry:]:
            if piece is not None:
                piece[1] *= factor

    def words(text):
        for i, part in enumerate(re.split(r"\s*\bBREAK\b\s*", text)):
            if i:
                out.append(None)
            out.append([part, 1.0])

    def last(kind):
        return next((i for i in reversed(range(len(stack))) if stack[i][0] == kind), None)

    for kind, shown, weight in tokens_of(text):
        if kind in "([":
            stack.append((kind, len(out)))
        elif kind == "weight" and last("(") is not None:
            scale(stack.pop(last("("))[1], weight)
        elif kind == ")" and last("(") is not None:
            scale(stack.pop(last("("))[1], 1.1)
        elif kind == "]" and last("[") is not None:
            scale(stack.pop(last("["))[1], 1 / 1.1)
        elif kind == "text":
            out.append([shown, 1.0])
        else:
            words(shown)
    for wanted, factor in (("(", 1.1), ("[", 1 / 1.1)):
        for kind, start in stack:
            if kind == wanted:
                scale(start, factor)
    merged = []
    for piece in out:
        if piece and merged and merged[-1] and merged[-1][1] == piece[1]:
            merged[-1][0] += piece[0]
        else:
            merged.append(piece)
    return merged or [["", 1.0]]


class WebUi:
    """One text encoder as the web UI runs it."""

    def __init__(self, tokenizer, model, embeddings, raw):
        self.tokenizer, self.model, self.raw = tokenizer, model, raw
        self.embeddings = {tuple(self.ids(name)): vectors for name, vectors in embeddings.items()}
        self.comma = tokenizer.get_vocab()[",</w>"]

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]

    def chunks(self, text):
        """Lists of at most 75 (id or vector, weight)."""
        done, chunk, comma = [], [], None
        for piece in pieces_of(text):
            if piece is None:
                done.append(chunk)
                chunk, comma = [], None
                continue
            ids, at = self.ids(piece[0]), 0
            while at < len(ids):
                if ids[at] == self.comma:
                    comma = len(chunk)
                elif len(chunk) == 75 and comma is not None and 75 - comma <= 20:
                    done.append(chunk[:comma + 1])
                    chunk, comma = chunk[comma + 1:], None
                if len(chunk) == 75:
                    done.append(chunk)
                    chunk, comma = [], None
                name = max((n for n in self.embeddings if tuple(ids[at:at + len(n)]) == n), key=len, default=None)
                word = [ids[at]] if name is None else list(self.embeddings[name])
                if len(chunk) + len(word) > 75:
                    done.append(chunk)
                    chunk, comma = [], None
                chunk += [(item, piece[1]) for item in word]
                at += 1 if name is None else len(name)
        return done + [chunk] if chunk or not done else done

    def encode(self, chunk, skip):
        start, end, pad = (getattr(self.tokenizer, f"{n}_token_id") for n in ("bos", "eos", "pad"))
        items = [(start, 1.0)] + chunk + [(end, 1.0)] + [(pad, 1.0)] * (75 - len(chunk))
        ids = torch.tensor([[0 if torch.is_tensor(i) else i for i, _ in items]])
        states, hooks = [], []
        body = getattr(self.model, "text_model", self.model)

        def place(module, args, output):
            for i, (item, _) in enumerate(items):
                if torch.is_tensor(item):
                    output[0, i] = item
            return output

        hooks.append(body.embeddings.token_embedding.register_forward_hook(place))
        hooks.append(body.embeddings.register_forward_hook(lambda m, a, o: states.append(o)))
        for layer in body.encoder.layers:
            hooks.append(layer.register_forward_hook(lambda m, a, o: states.append(o[0] if isinstance(o, tuple) else o)))
        with torch.no_grad():
            out = self.model(ids)
            z = states[-skip] if self.raw else body.final_layer_norm(states[-skip])
        for hook in hooks:
            hook.remove()
        before = z.mean()
        z = z * torch.tensor([w for _, w in items]).reshape(1, -1, 1)
        return z * (before / z.mean()), getattr(out, "text_embeds", None)


def weighted(encoders, texts, skip):
    rows, pooled = [], []
    count = max(len(e.chunks(t)) for e in encoders for t in texts)
    for text in texts:
        parts = []
        for encoder in encoders:
            chunks = encoder.chunks(text)
            chunks += [[]] * (count - len(chunks))
            encoded = [encoder.encode(chunk, skip or (2 if encoder.raw else 1)) for chunk in chunks]
            parts.append(torch.cat([z for z, _ in encoded], dim=1))
            last = encoded[0][1]
        rows.append(torch.cat(parts, dim=-1))
        pooled.append(last)
    return torch.cat(rows), None if pooled[0] is None else torch.cat(pooled)


# The models.

def tokenizer(pad):
    return CLIPTokenizer.from_pretrained(VOCABULARY, pad_token=pad)


def save_encoder(model, folder):
    model.to(torch.float16).save_pretrained(os.path.join(OUT, folder))
    return model.to(torch.float32)


def models(g):
    config = lambda hidden, layers, heads, **kw: text_config(2048, hidden, layers, heads, **kw)
    sd = half_round(perturb(CLIPTextModel(config(32, 3, 2)), g))
    one = half_round(perturb(CLIPTextModel(config(32, 3, 2)), g))
    two = half_round(perturb(CLIPTextModelWithProjection(config(48, 4, 3, act="gelu", proj=40)), g))
    return (save_encoder(sd, "sd/text_encoder"), save_encoder(one, "sdxl/text_encoder"),
            save_encoder(two, "sdxl/text_encoder_2"))


def unet():
    return UNet2DConditionModel(block_out_channels=(32, 32), layers_per_block=1, cross_attention_dim=8, attention_head_dim=4,
                                down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)


def pipelines():
    """Fresh ones from the files, since textual inversion changes them."""
    load = lambda cls, folder: cls.from_pretrained(os.path.join(OUT, folder), torch_dtype=torch.float32)
    vae, sampler = AutoencoderKL(), EulerDiscreteScheduler()
    sd = StableDiffusionPipeline(vae=vae, text_encoder=load(CLIPTextModel, "sd/text_encoder"),
                                 tokenizer=tokenizer("<|endoftext|>"), unet=unet(), scheduler=sampler, safety_checker=None,
                                 feature_extractor=None, requires_safety_checker=False)
    sdxl = StableDiffusionXLPipeline(vae=vae, text_encoder=load(CLIPTextModel, "sdxl/text_encoder"),
                                     text_encoder_2=load(CLIPTextModelWithProjection, "sdxl/text_encoder_2"),
                                     tokenizer=tokenizer("<|endoftext|>"), tokenizer_2=tokenizer("!"), unet=unet(),
                                     scheduler=sampler)
    return {"sd": sd, "sdxl": sdxl}


# file: (its tensors' shapes, the word, under which key diffusers gives it to which encoder)
EMBEDDINGS = {
    "sd-style": {"emb_params": (3, 32)},
    "learned": {"<cat-toy>": (32,)},
    "several": {"<two-toys>": (2, 32)},
    "xl-style": {"clip_l": (2, 32), "clip_g": (3, 48)},
}


def word(file):
    return file if file.endswith("style") else next(iter(EMBEDDINGS[file]))


def embedding(file):
    return load_file(os.path.join(OUT, file + ".safetensors"))


def with_diffusers(case):
    pipe = pipelines()[case["model"]]
    for file in case["embeddings"]:
        tensors = embedding(file)
        if "clip_g" in tensors:
            for key, t, m in (("clip_l", pipe.tokenizer, pipe.text_encoder), ("clip_g", pipe.tokenizer_2, pipe.text_encoder_2)):
                pipe.load_textual_inversion({word(file): tensors[key]}, token=word(file), tokenizer=t, text_encoder=m)
        else:
            pipe.load_textual_inversion(tensors, token=word(file))
    skip, texts = case["clip_skip"], [case["negative"], case["prompt"]]
    # transformers 5 has no `text_model` any more, where this diffusers looks for the final norm.
    object.__setattr__(pipe.text_encoder, "text_model", pipe.text_encoder)
    # Both texts as prompts: diffusers skips no layer for a negative one, the web UI does.
    with torch.no_grad():
        if case["model"] == "sd":
            return pipe.encode_prompt(texts, "cpu", 1, False, clip_skip=skip and skip - 1)[0], None
        encoded = pipe.encode_prompt(texts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False,
                                     clip_skip=skip and skip - 2)
        return encoded[0], encoded[2]


def with_web_ui(case, sd, one, two):
    given = {word(file): embedding(file) for file in case["embeddings"]}

    def of(key, width):
        rows = {name: tensors.get(key, next(iter(tensors.values()))) for name, tensors in given.items()}
        return {name: v.reshape(-1, v.shape[-1]) for name, v in rows.items() if v.shape[-1] == width}

    ends, bangs = tokenizer("<|endoftext|>"), tokenizer("!")
    if case["model"] == "sd":
        encoders = [WebUi(ends, sd, of("clip_l", 32), False)]
    else:
        encoders = [WebUi(ends, one, of("clip_l", 32), True), WebUi(bangs, two, of("clip_g", 48), True)]
    return weighted(encoders, [case["negative"], case["prompt"]], case["clip_skip"])


LONG = "a red circle on a blue background, " * 6 + "a green square to the left of a yellow star " * 6 + ", the end"
CASES = [
    # model, syntax, clip skip, embeddings, prompt, negative
    ("sd", "plain", None, [], "a (red:1.3) circle, [blue] BREAK background", "blurry"),
    ("sd", "plain", 2, [], "a red circle", ""),
    ("sd", "plain", None, ["sd-style", "learned", "several"], "a <cat-toy>, sd-style and <two-toys>", "sd-style"),
    ("sdxl", "plain", 3, [], "a red circle", "blurry"),
    ("sdxl", "plain", None, ["xl-style"], "xl-style of a red circle", "blurry"),
    ("sd", "weighted", None, [], "a red circle", ""),
    ("sd", "weighted", None, [], "a (red:1.3) ((circle)) on a [blue] \\(dark\\) background", "(blurry:0.5)"),
    ("sd", "weighted", None, [], LONG, "blurry"),
    ("sd", "weighted", 2, [], "a red (circle BREAK on:1.4) a blue background BREAK", LONG + "(" + LONG),
    ("sd", "weighted", 3, [], "(a red circle", "a] b:1.2) [c"),
    ("sd", "weighted", None, ["sd-style", "several"], "word " * 74 + "sd-style (red sd-style:1.5)", "sd-style"),
    ("sdxl", "weighted", None, [], "a (red:1.3) circle on a [blue] background", "(blurry:0.5)"),
    ("sdxl", "weighted", 1, [], LONG, "blurry BREAK dark"),
    ("sdxl", "weighted", None, ["xl-style"], "(xl-style:1.2) of a red circle", "blurry"),
]


def unet_case(g):
    """The keys and values of two chunks."""
    path = os.path.join(HERE, "cases", "sd1")
    net = UNet2DConditionModel.from_pretrained(os.path.join(path, "unet"), torch_dtype=torch.float32).eval()
    x, t = torch.randn((2, 4, 8, 12), generator=g), torch.tensor([801, 21])
    context = torch.randn((2, 154, net.config.cross_attention_dim), generator=g)
    with torch.no_grad():
        y = net(x, t, context).sample
    pair(path, "unet-long", {"sample": x, "timestep": t, "encoder_hidden_states": context}, {"sample": y})


def parsed(seed=6, count=300):
    """Random prompts, mostly malformed, and their pieces."""
    draw = random.Random(seed)
    signs = ["(", ")", "[", "]", ":", "\\", ":1.3)", ": .5 )", ":-2)", ":1.2.3)", "BREAK", " ", ",", "a", "red", "é", "日本", "1"]
    prompts = ["".join(draw.choices(signs, k=draw.randrange(14))) for _ in range(count)]
    with open(os.path.join(OUT, "parsed.json"), "w") as file:
        rows = (json.dumps([prompt, pieces_of(prompt)], ensure_ascii=False) for prompt in prompts)
        file.write("[\n" + ",\n".join(rows) + "\n]\n")


# The negative prompt and the prompt at each of six steps, of "[yellow::3]" and
# "[a red circle:a blue square on [white|black]:1]": the web UI counts steps from 0 where it looks for one whose end is
# not before it, and ends from 1.
EDITED = [("yellow", "a red circle")] * 2 + [
    ("yellow", "a blue square on black"), ("yellow", "a blue square on white"), ("", "a blue square on black"),
    ("", "a blue square on white")]


def edited():
    """Two pictures."""
    model = os.path.join(VOCABULARY, "..")
    pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, torch_dtype=torch.float32)

    def embeddings(step):
        negative, prompt = EDITED[step]
        pair = pipe.encode_prompt(prompt, "cpu", 2, True, negative_prompt=negative)
        return torch.cat(pair[::-1])

    def change(_, step, time, given):
        return {"prompt_embeds": embeddings(step + 1)} if step + 1 < len(EDITED) else given

    latents = pipe(prompt=EDITED[0][1], negative_prompt=EDITED[0][0], height=64, width=64, guidance_scale=4.0,
                   num_inference_steps=len(EDITED), num_images_per_prompt=2, output_type="latent",
                   generator=[torch.Generator().manual_seed(seed) for seed in (5, 6)], callback_on_step_end=change,
                   callback_on_step_end_tensor_inputs=["prompt_embeds"]).images
    save_file({"latents": latents.contiguous()}, os.path.join(OUT, "edited.safetensors"))


def main():
    os.makedirs(OUT, exist_ok=True)
    g = torch.Generator().manual_seed(6)
    sd, one, two = models(g)
    for file, shapes in EMBEDDINGS.items():
        vectors = {key: 0.5 * torch.randn(shape, generator=g) for key, shape in shapes.items()}
        save_file(vectors, os.path.join(OUT, file + ".safetensors"))
    names = ("model", "syntax", "clip_skip", "embeddings", "prompt", "negative")
    cases, expected = [dict(zip(names, case)) for case in CASES], {}
    for i, case in enumerate(cases):
        plain = case["syntax"] == "plain"
        context, pooled = with_diffusers(case) if plain else with_web_ui(case, sd, one, two)
        expected[f"{i}.context"] = context.contiguous()
        if pooled is not None:
            expected[f"{i}.pooled"] = pooled.contiguous()
        print(i, case["model"], case["syntax"], tuple(context.shape))
    save_file(expected, os.path.join(OUT, "expected.safetensors"))
    with open(os.path.join(OUT, "cases.json"), "w") as file:
        json.dump(cases, file, indent=1)
    unet_case(g)
    parsed()
    edited()


if __name__ == "__main__":
    main()
