# What the recipes of the stages and evaluations have in common; they source it in the project's
# folder.
#
# Settings are those of the authors' scripts, unless an environment variable changes them.

accelerated() { # accelerated COMMAND…: kosmosg COMMAND by accelerate, on all GPUs
  local launcher
  if [ "${CONFIG:-}" = none ]; then # in one process, without accelerate's launcher
    exec "${PYTHON:-.venv/bin/python}" -m kosmosg "$@"
  fi
  read -ra launcher <<< "${LAUNCH:-}" # such as --num_processes 4
  exec "${PYTHON:-.venv/bin/python}" -m accelerate.commands.launch \
    --config_file "${CONFIG:-runs/accelerate/ddp.yaml}" ${launcher[@]+"${launcher[@]}"} \
    -m kosmosg "$@"
}

launch() { # launch STAGE OPTIONS…: train a stage
  local stage=$1 checkpointing=(--gradient-checkpointing)
  shift
  [ "${GRADIENT_CHECKPOINTING:-1}" = 1 ] || checkpointing=()
  accelerated train "$stage" \
    --warmup-updates "${WARMUP_UPDATES:-${WARMUP_STEPS:-375}}" \
    --betas 0.9 0.98 --epsilon 1e-6 --weight-decay 0.01 --clip-norm 2.0 \
    --precision "${PRECISION:-fp16}" ${checkpointing[@]+"${checkpointing[@]}"} \
    --save-every "${SAVE_EVERY:-2000}" --seed "${SEED:-0}" --threads "${THREADS:-8}" "$@"
}

evaluate() { # evaluate EVALUATION WEIGHTS OPTIONS…: measure KOSMOS-G, or a pipeline of diffusers
  local evaluation=$1 weights=$2 model=--weights
  shift 2
  [ "${BASELINE:-0}" = 0 ] || model=--pipeline
  accelerated evaluate "$evaluation" "$model" "$weights" \
    --protocol "${PROTOCOL:-paper}" --seed "${SEED:-0}" "$@"
}
