#!/usr/bin/env bash
# The miniature, from nothing to weights/miniature: a world, its CLIP, VAE and U-Net, then KOSMOS-G
# in its three stages, and the tables of the paper.
#
#   command    runs/miniature.sh [FOLDER]           default folder: outputs/miniature
#   hardware   2 CPU cores with bfloat16, 4 GB of memory, 2 GB of disk; a GPU is used if there is one
#   duration   see the table in README, by part
#   expected   see the table in README
#
# Everything is seeded. Whatever is finished is not done again, and a part that was interrupted goes
# on from its last checkpoint, so the same command continues a run that was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."

run=${1:-outputs/miniature}
python=${PYTHON:-.venv/bin/python}
sizes=runs/miniature.json
data=$run/data
mkdir -p "$run"

if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  launch=("$python" -m kosmosg)
else
  # Two processes with a thread each get more out of two cores than one process with two threads.
  export OMP_NUM_THREADS=1
  launch=("$python" -m accelerate.commands.launch --config_file runs/accelerate/cpu.yaml -m kosmosg)
fi

train() { # train STAGE NAME OPTIONS…
  local stage=$1 name=$2
  shift 2
  [ -d "$run/$name/weights" ] && return
  echo "== $name ($(date +%H:%M:%S))"
  "${launch[@]}" train "$stage" --output "$run/$name" --precision bf16 --threads 0 --min-side 64 \
    --save-every 500 --sample-every 1000 "$@"
}

echo "== world ($(date +%H:%M:%S))"
[ -d "$run/vocabulary" ] || "$python" -m kosmosg miniature vocabulary "$run/vocabulary"
"$python" -m kosmosg miniature data "$data"

# What the paper takes from others: CLIP, a VAE, a U-Net. They see all of the world.
train vae vae --config "$sizes" --data "$data/pictures" --save-dtype float16 \
  --steps 8000 --batch-size 8 --learning-rate 1e-3 --warmup-steps 100 --betas 0.9 0.99 \
  --weight-decay 0 --clip-norm 1
train clip clip --config "$sizes" --tokenizer "$run/vocabulary/clip_tokenizer" \
  --data "$data/pictures" --save-dtype float16 \
  --steps 2500 --batch-size 128 --learning-rate 1e-3 --warmup-steps 100 --weight-decay 0.1 \
  --clip-norm 1
train decoder decoder --config "$sizes" --clip "$run/clip/weights" --vae "$run/vae/weights" \
  --data "$data/pictures" --save-dtype float16 --ema-decay 0.999 \
  --steps 12000 --batch-size 64 --learning-rate 1e-3 --warmup-steps 200 --betas 0.9 0.99 \
  --clip-norm 1
train probe probe --steps 3000 --batch-size 64 --learning-rate 3e-3 --warmup-steps 200 \
  --clip-norm 10 --save-dtype float16

# KOSMOS-G: the language model from nothing, its eye from CLIP, the decoder as it is.
[ -d "$run/start" ] || "$python" -m kosmosg new "$run/start" --config "$sizes" --dtype float16 \
  --tokenizer "$run/vocabulary/tokenizer" --stable-diffusion "$run/decoder/weights" \
  --clip "$run/clip/weights/clip" --text-encoder
train lm lm --weights "$run/start" --tokens 192 --lanes 2 \
  --data "$data/text:1" --data "$data/captions:2" --data "$data/documents:2" \
  --steps 2000 --batch-size 16 --learning-rate 1e-3 --warmup-steps 100
train align align --weights "$run/lm/weights" --data "$data/captions" --skip-padding \
  --steps 3000 --batch-size 128 --learning-rate 1e-3 --warmup-steps 100
instruct=(--data "$data/compositional:2" --data "$data/edits:2" --data "$data/captions:1")
train instruct instruct --weights "$run/align/weights" "${instruct[@]}" \
  --save-dtype float16 --ema-decay 0.999 \
  --steps 6000 --batch-size 32 --learning-rate 5e-4 --warmup-steps 200

# For comparison (paper, table 2): AlignerNet without CLIP as its teacher, for as many steps.
train instruct end-to-end --weights "$run/lm/weights" --aligner-only --data "$data/captions" \
  --steps 3000 --batch-size 32 --learning-rate 1e-3 --warmup-steps 100

echo "== tables ($(date +%H:%M:%S))"
rm -rf weights/miniature
cp -r "$run/instruct/weights" weights/miniature
cp -r "$run/probe/weights" weights/miniature/probe
"$python" -m kosmosg evaluate miniature --weights weights/miniature \
  --after-align "$run/align/weights" --end-to-end "$run/end-to-end/weights" --output "$run/tables"
"$python" -m kosmosg evaluate miniature --weights weights/miniature --sheet samples/miniature.png
