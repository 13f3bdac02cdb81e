#!/usr/bin/env bash
# The miniature, from nothing to weights/miniature: a world of artwork, its CLIP, VAE and U-Net, then
# KOSMOS-G in its three stages, and the tables of the paper.
#
#   command    runs/miniature.sh [FOLDER]           default folder: outputs/miniature
#              ART=FOLDER: transparent PNGs named by nouns, instead of the public art that npm fetches;
#              SIZES=FILE: other sizes than runs/miniature.json
#   hardware   2 CPU cores with bfloat16, 8 GB of memory, 6 GB of disk; a GPU is used if there is one
#   duration   NOT MEASURED YET
#   expected   NOT MEASURED YET
#
# Everything is seeded. The same command continues a run that was stopped: a part that is finished is
# not done again, one that was interrupted goes on from its last checkpoint, and one whose settings
# have changed since is refused.
set -euo pipefail
cd "$(dirname "$0")/.."

run=${1:-outputs/miniature}
python=${PYTHON:-.venv/bin/python}
sizes=${SIZES:-runs/miniature.json}
art=(${ART:+--art "$ART"})
data=$run/data
mkdir -p "$run"

one=("$python")
all=("${one[@]}")
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  # Two processes with a thread each get more out of two cores than one process with two threads.
  one=(env OMP_NUM_THREADS=1 "${one[@]}")
  all=(env OMP_NUM_THREADS=1 "$python" -m accelerate.commands.launch
    --config_file runs/accelerate/cpu.yaml)
fi
launch=("${all[@]}")

train() { # train STAGE NAME UPDATES OPTIONS…; a second call with more UPDATES goes on
  local stage=$1 name=$2 updates=$3 package=miniature
  shift 3
  case $stage in lm | align | instruct) package=kosmosg ;; esac
  echo "== $name, $updates updates ($(date +%H:%M:%S))"
  "${launch[@]}" -m "$package" train "$stage" --output "$run/$name" --updates "$updates" --save-every 250 "$@"
}

make_folder() { # make_folder NAME COMMAND…: the command writes NAME.part, which becomes NAME
  local name=$1
  shift
  [ -d "$run/$name" ] && return
  rm -rf "$run/$name.part"
  "$@"
  mv "$run/$name.part" "$run/$name"
}

echo "== world ($(date +%H:%M:%S))"
make_folder vocabulary "$python" -m miniature vocabulary "$run/vocabulary.part" "${art[@]}"
"$python" -m miniature data "$data" "${art[@]}"

# What the paper takes from others: CLIP, a VAE, a U-Net. They see all of the world. Where a part is
# of one process, two of them share the cores: CLIP compares what is in its own batch, and the probe's
# BatchNorm is to see a batch, not the half of it.
scaffold=(--config "$sizes" --data "$data/images" --min-side 64 --precision bf16
  --save-dtype float16)
vae=(--threads 0 --warmup-updates 100 --betas 0.9 0.99 --weight-decay 0 --clip-norm 1
  --sample-every 200)
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
launch=("${one[@]}")
train clip clip 4000 "${scaffold[@]}" --threads 0 --tokenizer "$run/vocabulary/clip_tokenizer" \
  --batch-size 64 --learning-rate 1e-3 --warmup-updates 200 --weight-decay 0.1 --clip-norm 1 &
train vae vae 3000 "${scaffold[@]}" "${vae[@]}" --batch-size 16 --crop 64 --learning-rate 1e-3
wait $!
# The latents stay as they are; what they become is made better, on whole images and with CLIP's eye.
train vae vae-decoder 2500 "${scaffold[@]}" "${vae[@]}" --batch-size 8 --learning-rate 5e-4 \
  --vae "$run/vae/weights" --clip "$run/clip/weights" &
train probe probe 5000 --batch-size 16 --learning-rate 1.5e-3 --warmup-updates 600 --clip-norm 2 \
  --save-dtype float16 "${art[@]}"
wait $!
launch=("${all[@]}")
train decoder decoder 7000 "${scaffold[@]}" --clip "$run/clip/weights" --vae "$run/vae/weights" \
  --batch-size 64 --snr-gamma 5 --learning-rate 1e-3 --warmup-updates 200 --betas 0.9 0.99 \
  --clip-norm 1 --ema-decay 0.999

# KOSMOS-G: the language model from nothing, its eye from CLIP, the decoder as it is.
assemble() {
  cp -r "$run/decoder/weights" "$run/stable-diffusion.part"
  rm -r "$run/stable-diffusion.part/vae"
  cp -r "$run/vae-decoder/weights/vae" "$run/stable-diffusion.part/vae"
}
make_folder stable-diffusion assemble
make_folder start "$python" -m kosmosg new "$run/start.part" --config "$sizes" --dtype float16 \
  --tokenizer "$run/vocabulary/tokenizer" --stable-diffusion "$run/stable-diffusion" \
  --clip "$run/clip/weights/clip" --text-encoder
kosmosg=(--min-side 64 --threads 0 --precision bf16)
train lm lm 1500 "${kosmosg[@]}" --weights "$run/start" --tokens 192 --packing-streams 2 \
  --data "$data/text:1" --data "$data/captions:2" --data "$data/documents:2" \
  --batch-size 16 --learning-rate 1e-3 --warmup-updates 100
train align align 2500 "${kosmosg[@]}" --weights "$run/lm/weights" --data "$data/captions" \
  --skip-padding --batch-size 128 --learning-rate 1e-3 --warmup-updates 100
train instruct instruct 3000 "${kosmosg[@]}" --weights "$run/align/weights" \
  --data "$data/compositional:2" --data "$data/edits:2" --data "$data/captions:1" \
  --save-dtype float16 --ema-decay 0.998 --sample-every 500 \
  --batch-size 32 --learning-rate 5e-4 --warmup-updates 100
# For comparison (paper, table 2): AlignerNet without CLIP as its teacher.
train instruct end-to-end 1000 "${kosmosg[@]}" --weights "$run/lm/weights" --aligner-only \
  --data "$data/captions" --batch-size 32 --learning-rate 1e-3 --warmup-updates 100

echo "== tables ($(date +%H:%M:%S))"
result=$run/miniature
make_result() {
  cp -r "$run/instruct/weights" "$result.part"
  cp -r "$run/probe/weights" "$result.part/probe"
}
make_folder miniature make_result
"$python" -m miniature evaluate "${art[@]}" --weights "$result" --after-align "$run/align/weights" \
  --end-to-end "$run/end-to-end/weights" --output "$run/tables" --sheet "$run/skills.png"
# A ControlNet is trained for one U-Net: runs/miniature_techniques.sh makes another one for this.
rm -rf weights/miniature
cp -r "$result" weights/miniature
cp "$run/skills.png" samples/miniature.png
