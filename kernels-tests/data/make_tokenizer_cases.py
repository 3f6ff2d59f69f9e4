#!/usr/bin/env python3
"""Write what transformers' CLIPTokenizer makes of prompts, for kernels-tests/tokenizer.rs.

    pip install transformers open_clip_torch
    python make_tokenizer_cases.py

Writes the merges of OpenAI's CLIP vocabulary (MIT licence), which open_clip_torch carries, into assets/clip/merges.txt.gz,
and beside itself, into tokenizer/:
    openai.json           prompts and their ids with that vocabulary, as they are and padded to 77
    shapes.json           prompts and their ids with the built-in model's vocabulary, under each way to configure it
    shapes.tokenizer.json.gz  the built-in model's tokenizer in the one-file form that transformers 5 writes
"""
import gzip
import json
import os
import shutil
import tempfile

import open_clip
from transformers import CLIPTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "tokenizer")
SHAPES = os.path.join(HERE, "..", "..", "assets", "demo-model", "tokenizer")

OPENAI_PROMPTS = [
    "", " ", "a photo of a cat", "A Photo Of A CAT!!!", "a photograph of an astronaut riding a horse",
    "masterpiece, best quality, (highly detailed:1.2), 8k, artstation, by greg rutkowski", "don't can't we'll I'm you've he'd it's",
    "  many   spaces\tand\nnewlines  ", "café naïve résumé Ærøskøbing straße İstanbul", "日本の富士山、浮世絵", "Привет, мир! как дела",
    "🐱🦊 emoji party 🎉👩‍👩‍👧‍👦", "price: $1,234.56 + 7% = ?", "snake_case_word and kebab-case-word and CamelCaseWord", "a" * 300,
    "word " * 100, "<|startoftext|> injected <|endoftext|> tokens", "&lt;b&gt; html &amp; entities", "http://example.com/a?b=c&d=e#f",
    "ﬁ ligature ① ½ ™ №", "e\u0301 combining vs \u00e9", "\u200bzero\u200bwidth", "السلام عليكم", "नमस्ते दुनिया", "한국어 프롬프트", "0123456789 3.14159 1e-5",
    "a cat :: a dog | (parens) [brackets] {braces} \\ / ~ ` ^", "ALLCAPS lower MiXeD", "\u00a0nbsp\u00a0here\u3000ideographic",
]

PROMPTS = OPENAI_PROMPTS + [
    "a red circle", "a large yellow star on a blue background", "a green square to the left of a yellow star",
    "an orange star below a cyan circle on a purple background", "A RED CIRCLE. The background is Blue!", "rhombus, donut & disc",
    "supercalifragilisticexpialidocious", "x", "!", "!!!!", "hello!world! !", "'s", "it's'll've'd're'm't", "don’t typographic ‘quotes’ “here”",
    "1 2 3 4th 5th 1000000", "٣ ١٢ ௩ Ⅷ ²³", "\t\r\n\x0b\x0c\x85\u2028\u2029", "tabs\tand\u2003em\u2003spaces", "\ufeffbyte order mark",
    "\u0000nul\u0001control\u007f", "Ω Å Å ﬃ ǆ ǅ", "ẞ ß ſ K İ ı", "ΑΒΓΔ ΣΑΣ ΟΔΟΣ", "ᏣᎳᎩ Ꮳ ꭰ", "Дж дЖ ЉЊ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕏 𝟙",
    "👩🏽‍🚀 🇩🇪 ☃️ ✈", "a\u0301\u0327 q\u0307\u0323", "각 각", "ไทย ภาษา", "বাংলা", "עִבְרִית", "中文，标点。", "…—–‐ • ¿¡ §¶",
    "<|startoftext|>", "<|endoftext|>", "a<|endoftext|>b<|startoftext|>c", "<|STARTOFTEXT|> <|EndOfText|>", "<|endoftext|><|endoftext|>",
    "< |endoftext|> <|endoftext |>", "<b>bold</b> <!-- no -->", "(red:1.3) [blue] {green|yellow} <lora:x:0.5>", "C:\\path\\file.png", "a  b   c    d",
    "circle " * 90, "z" * 200, "\U0010ffff\ue000\ufffd", "\u1e9b\u0323 \u212b \u2126",
]

SUBSET = ["", "a red circle", "hello!world! !", "!!!!", "<|startoftext|> injected <|endoftext|> tokens", "<|STARTOFTEXT|> <|EndOfText|>",
          "a<|endoftext|>b<|startoftext|>c", "a <my-concept> in the style of <MY-CONCEPT>", " <my-concept>circle ", "circle " * 90]


def flagged(content, **flags):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False, **flags}


START, END = "<|startoftext|>", "<|endoftext|>"
NAMED = {"bos_token": flagged(START), "eos_token": flagged(END), "unk_token": flagged(END)}
TYPED = {key: {"__type": "AddedToken", **value} for key, value in NAMED.items()}
# What stands beside vocab.json and merges.txt in published folders.
VARIANTS = {
    "bare": {},
    "sd15": {"special_tokens_map.json": {**NAMED, "pad_token": END},
             "tokenizer_config.json": {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77,
                                       "pad_token": END, **TYPED, "tokenizer_class": "CLIPTokenizer"}},
    "sd2": {"special_tokens_map.json": {**NAMED, "pad_token": "!"},
            "tokenizer_config.json": {"model_max_length": 77, "pad_token": END, **TYPED, "tokenizer_class": "CLIPTokenizer"}},
    "sdxl-2": {"special_tokens_map.json": {**NAMED, "pad_token": "!"},
               "tokenizer_config.json": {"added_tokens_decoder": {"0": flagged("!", normalized=False, special=True),
                                                                  "2046": flagged(START, special=True),
                                                                  "2047": flagged(END, normalized=False, special=True)},
                                         "bos_token": START, "eos_token": END, "unk_token": END, "pad_token": "!", "model_max_length": 77}},
    "added": {"added_tokens.json": {"<my-concept>": 2048}},
    "added-flags": {"tokenizer_config.json": {"added_tokens_decoder": {
        "2046": flagged(START, normalized=False, special=True), "2047": flagged(END, normalized=False, special=True),
        "2048": flagged("<my-concept>", normalized=False, lstrip=True, rstrip=True, single_word=True, special=False)}}},
}


def rows(tokenizer, prompts, padded=True):
    cases = []
    for text in prompts:
        case = {"text": text, "ids": tokenizer(text)["input_ids"]}
        if padded:
            case["padded"] = tokenizer(text, padding="max_length", truncation=True, max_length=77)["input_ids"]
        cases.append(case)
    return cases


def write(name, value):
    with open(os.path.join(OUT, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")


def compress(name, text):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(gzip.compress(text.encode(), 9, mtime=0))


def openai():
    source = os.path.join(os.path.dirname(open_clip.__file__), "bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.open(source).read().decode("utf-8").split("\n")[1:49152 - 256 - 2 + 1]
    printable = list(range(ord("!"), ord("~") + 1)) + list(range(ord("¡"), ord("¬") + 1)) + list(range(ord("®"), ord("ÿ") + 1))
    symbols = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    vocab = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in merges] + [START, END]
    with tempfile.TemporaryDirectory() as folder:
        json.dump({s: i for i, s in enumerate(vocab)}, open(os.path.join(folder, "vocab.json"), "w"))
        text = "#version: 0.2\n" + "\n".join(merges) + "\n"
        open(os.path.join(folder, "merges.txt"), "w").write(text)
        tokenizer = CLIPTokenizer(os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt"), model_max_length=77)
        write("openai.json", rows(tokenizer, OPENAI_PROMPTS))
    compress(os.path.join(HERE, "..", "..", "assets", "clip", "merges.txt.gz"), text)


def shapes():
    variants = []

    def add(name, tokenizer, files, prompts, one_file=False):
        variants.append({"name": name, "one_file": one_file, "files": files,
                         "cases": rows(tokenizer, prompts, padded=prompts is SUBSET)})

    add("shapes", CLIPTokenizer.from_pretrained(SHAPES), None, PROMPTS)
    for name, files in VARIANTS.items():
        with tempfile.TemporaryDirectory() as folder:
            for file in ["vocab.json", "merges.txt"]:
                shutil.copy(os.path.join(SHAPES, file), folder)
            for file, content in files.items():
                json.dump(content, open(os.path.join(folder, file), "w"))
            add(name, CLIPTokenizer.from_pretrained(folder), files, SUBSET)
    with tempfile.TemporaryDirectory() as folder:
        CLIPTokenizer.from_pretrained(SHAPES).save_pretrained(folder)
        config = json.load(open(os.path.join(folder, "tokenizer_config.json")))
        add("one file", CLIPTokenizer.from_pretrained(folder), {"tokenizer_config.json": config}, PROMPTS, one_file=True)
        compress("shapes.tokenizer.json.gz", open(os.path.join(folder, "tokenizer.json"), encoding="utf-8").read())
    write("shapes.json", variants)


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    openai()
    shapes()
