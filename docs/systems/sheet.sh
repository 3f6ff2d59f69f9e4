#!/usr/bin/env bash
# Makes docs/systems/ddpm-1000.png and ddim-50.png: 64 pictures of shapes-ddpm, seeds 0 to 63, by both samplers.
# Needs ImageMagick (`montage`). Options go to `ornstein generate`, for instance `--device vulkan`.
set -euo pipefail
cd "$(dirname "$0")/../.."

cargo build --release --quiet
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

for how in ddpm-1000 ddim-50; do
    target/release/ornstein generate -m shapes-ddpm --sampler "${how%-*}" --steps "${how#*-}" --seed 0 --batch 64 \
        -o "$folder/$how.png" "$@" >/dev/null
    montage $(printf "$folder/$how-%s.png " $(seq 0 63)) -filter point -resize 48x48 -geometry +2+2 -tile 8x8 \
        -background white "docs/systems/$how.png"
done
