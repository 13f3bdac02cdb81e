#!/usr/bin/env bash
# A LoRA and a ControlNet for the miniature's decoder, trained with CLIP alone, and images that
# KOSMOS-G draws with them: the decoder's techniques take its conditions as they are (paper, section
# 4.4, figure 7).
#
#   command    runs/miniature_techniques.sh [FOLDER]  default folder: outputs/miniature_techniques
#   hardware   2 CPU cores with bfloat16, 3 GB of memory, 1 GB of disk; a GPU is used if there is one
#   duration   about 45 minutes: 38 for the ControlNet, at the 128 images a second that were measured, and
#              some for the LoRA and the data (estimate)
#   expected   samples/techniques.png; the LoRA ends with a loss of 0.11, the ControlNet with 0.064. A
#              cat that an edge map puts far to the left or right covers 88 % or more of where it is to
#              be, and without the map 62 %
#
# Everything is seeded, and the same command continues a run that was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."

run=${1:-outputs/miniature_techniques}
weights=${WEIGHTS:-weights/miniature}
python=${PYTHON:-.venv/bin/python}
launch=("$python" -m miniature)
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  launch=(env OMP_NUM_THREADS=1 "$python" -m accelerate.commands.launch
    --config_file runs/accelerate/cpu.yaml -m miniature)
fi

"$python" -m miniature data "$run/data"
settings=(--decoder "$weights" --min-side 64 --batch-size 32 --warmup-updates 50 --clip-norm 1
  --precision bf16 --save-dtype float16 --save-every 250)
"${launch[@]}" train lora --output "$run/neon" --data "$run/data/neon" --rank 4 \
  --updates 600 --learning-rate 1e-3 "${settings[@]}"
"${launch[@]}" train controlnet --output "$run/canny" --data "$run/data/images" --kind canny \
  --updates 9000 --learning-rate 1e-3 "${settings[@]}"
# Beside the weights and linked into them: KOSMOS-G itself does without.
mkdir -p "$weights-controlnet"
rm -rf "$weights-controlnet/canny"
cp -r "$run/canny/weights" "$weights-controlnet/canny"
ln -sfn "../$(basename "$weights")-controlnet" "$weights/controlnet"
cp "$run/neon/weights/pytorch_lora_weights.safetensors" samples/neon.safetensors
"$python" -m scripts.draw_techniques --weights "$weights" --lora samples/neon.safetensors \
  --output samples
