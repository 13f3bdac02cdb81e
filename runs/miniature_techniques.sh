#!/usr/bin/env bash
# A LoRA for the miniature's decoder, trained with CLIP alone, and pictures that KOSMOS-G draws with it
# and with the decoder's other techniques: they take its conditions as they are (paper, section 4.4,
# figure 7).
#
#   command    runs/miniature_techniques.sh [FOLDER]  default folder: outputs/miniature_techniques
#   hardware   2 CPU cores with bfloat16, 3 GB of memory, 1 GB of disk; a GPU is used if there is one
#   duration   a few minutes (not measured on a free machine)
#   expected   samples/techniques.png; the LoRA ends with a loss of 0.11
#
# Everything is seeded, and the same command continues a run that was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."

run=${1:-outputs/miniature_techniques}
weights=${WEIGHTS:-weights/miniature}
python=${PYTHON:-.venv/bin/python}
launch=("$python" -m kosmosg)
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  launch=(env OMP_NUM_THREADS=1 "$python" -m accelerate.commands.launch
    --config_file runs/accelerate/cpu.yaml -m kosmosg)
fi

"$python" -m kosmosg miniature data "$run/data"
settings=(--decoder "$weights" --min-side 64 --batch-size 32 --warmup-steps 50 --clip-norm 1
  --precision bf16 --save-dtype float16 --save-every 250)
"${launch[@]}" train lora --output "$run/neon" --data "$run/data/neon" --rank 4 \
  --steps 600 --learning-rate 1e-3 "${settings[@]}"
cp "$run/neon/weights/pytorch_lora_weights.safetensors" samples/neon.safetensors
"$python" -m scripts.draw_techniques --weights "$weights" --lora samples/neon.safetensors \
  --output samples
