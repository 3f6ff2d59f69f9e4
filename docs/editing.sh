#!/bin/sh
# Draws docs/editing.png with the built-in model: a picture, its right half drawn anew, extended, and drawn larger.
#
#     cargo build --release && docs/editing.sh
set -e
cd "$(dirname "$0")/.."
ornstein=target/release/ornstein
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
first="a red circle to the left of a yellow star on a purple background"
$ornstein generate "$first" --seed 11 -o "$folder/a.png" --device cpu
python3 - "$folder" <<'PY'
import sys
from PIL import Image
mask = Image.new("L", (64, 64))
mask.paste(255, (32, 0, 64, 64))
mask.save(sys.argv[1] + "/mask.png")
PY
$ornstein generate "a red circle to the left of a green square on a purple background" --seed 2 -o "$folder/b.png" --device cpu \
    --init-image "$folder/a.png" --mask "$folder/mask.png" --mask-blur 2
$ornstein generate "$first" --seed 5 -o "$folder/c.png" --device cpu --init-image "$folder/a.png" --extend 32,0,32,0
$ornstein generate "$first" --seed 11 -o "$folder/d.png" --device cpu --hires 1.5 \
    --hires-strength 0.5 --hires-mode lanczos
python3 - "$folder" <<'PY'
import sys
from PIL import Image
pictures = [Image.open(f"{sys.argv[1]}/{name}.png") for name in "abcd"]
sheet = Image.new("RGB", (sum(p.width * 2 for p in pictures) + 24 * 3, 192), "white")
left = 0
for picture in pictures:
    large = picture.resize((picture.width * 2, picture.height * 2), Image.LANCZOS)
    sheet.paste(large, (left, (192 - large.height) // 2))
    left += large.width + 24
sheet.save("docs/editing.png")
PY
