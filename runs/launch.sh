# What the recipes of the three stages have in common; they source it in the project's folder.
#
# Settings are those of the authors' training scripts, unless an environment variable changes them.

launch() { # launch STAGE OPTIONS…: kosmosg train STAGE by accelerate, on all GPUs
  local stage=$1 launcher checkpointing=(--gradient-checkpointing)
  shift
  [ "${GRADIENT_CHECKPOINTING:-1}" = 1 ] || checkpointing=()
  read -ra launcher <<< "${LAUNCH:-}" # such as --num_processes 4
  exec "${PYTHON:-.venv/bin/python}" -m accelerate.commands.launch \
    --config_file "${CONFIG:-runs/accelerate/ddp.yaml}" ${launcher[@]+"${launcher[@]}"} \
    -m kosmosg train "$stage" \
    --warmup-steps "${WARMUP_STEPS:-375}" \
    --betas 0.9 0.98 --epsilon 1e-6 --weight-decay 0.01 --clip-norm 2.0 \
    --precision "${PRECISION:-fp16}" ${checkpointing[@]+"${checkpointing[@]}"} \
    --save-every "${SAVE_EVERY:-2000}" --seed "${SEED:-0}" --threads "${THREADS:-8}" "$@"
}
