#!/usr/bin/env bash
# Makes docs/contact-sheet.png: twelve prompts of the built-in model's grammar, one seed each, with their captions.
# Needs ImageMagick (`montage`). Options go to `ornstein generate`, for instance `--device vulkan`.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --quiet
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

prompts=(
    "a red circle on a blue background"
    "a large yellow star on a black background"
    "a small white ring on a purple background"
    "a green square on a white background"
    "an orange diamond, cyan background"
    "a brown triangle on a pink background"
    "a green square to the left of a yellow star on a black background"
    "a white ring above a purple triangle on a yellow background"
    "a blue circle below a red diamond on a white background"
    "a pink star to the right of a gray square on a green background"
    "Please draw an ORANGE ring, gray background!"
    "a cyan triangle above a brown circle on a white background"
)
tiles=()
for index in "${!prompts[@]}"; do
    file=$folder/$index.png
    target/release/ornstein generate "${prompts[$index]}" --seed $((42 + index)) -o "$file" "$@" >/dev/null
    caption=$(fold -s -w 30 <<<"${prompts[$index]}")
    tiles+=(-label "$caption" "$file")
done
montage "${tiles[@]}" -filter point -resize 192x192 -geometry +12+10 -tile 4x3 -pointsize 13 -background white \
    docs/contact-sheet.png
