#!/usr/bin/env bash
# DreamBench as the paper measures it (section 4.2, appendix A): 30 subjects, 25 prompts each, four
# images of each prompt; DINO, CLIP-I and CLIP-T.
#
#   command    runs/dreambench.sh WEIGHTS SUBJECTS OUTPUT [OPTIONS OF kosmosg evaluate dreambench…]
#              SUBJECTS: the folder 'dataset' of https://github.com/google/dreambooth
#   hardware   any number of GPUs with 12 GB or more; 2 GB of disk
#   duration   2 hours and 50 minutes on an A100, 20 minutes on 8 (estimate: 3 000 images of 100
#              steps at 30 guided steps a second)
#   cost       about 6 dollars, at 2 an hour (estimate)
#   expected   DINO 0.694, CLIP-I 0.847, CLIP-T 0.287 (paper, table 1); not measured by us
#
# BASELINE=1 takes WEIGHTS for a pipeline of diffusers, such as Stable Diffusion v1.5, which gets the
# original prompts in words. The same command continues a run that was stopped.
set -euo pipefail
cd "$(dirname "$0")/.." # to which paths are relative
. runs/launch.sh
if [ $# -lt 3 ]; then
  echo "usage: $0 WEIGHTS SUBJECTS OUTPUT [OPTIONS…]" >&2
  exit 2
fi
weights=$1 subjects=$2 output=$3
shift 3

evaluate dreambench "$weights" \
  --subjects "$subjects" --output "$output" --steps "${STEPS:-100}" \
  --guidance-scale "${GUIDANCE_SCALE:-7.5}" --batch "${BATCH:-20}" "$@"
