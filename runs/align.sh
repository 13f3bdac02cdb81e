#!/usr/bin/env bash
# Stage 2 at full size: AlignerNet learns to say what CLIP's text encoder says, from captions alone
# (paper, sections 2.2 and 3.2).
#
#   command    runs/align.sh WEIGHTS CAPTIONS OUTPUT [OPTIONS OF kosmosg train align…]
#              WEIGHTS are a result of stage 1, CAPTIONS as for --data: a folder of shards
#   teacher    CLIP's text encoder, unless it lies in WEIGHTS, comes from the Hub, or from what
#              `python -m kosmosg download text-encoder` has fetched before (250 MB):
#              STABLE_DIFFUSION=weights/stable-diffusion-v1-5
#   hardware   the authors' 256 V100 (their scripts: 64 GPUs); here 8 GPUs with 40 GB (estimate)
#   duration   one day on the authors' (paper, section 3.2); four days on 8 A100 at 30 % of their peak
#              (computed: python -m kosmosg estimate --preset published --gpus 8 --stage align)
#   expected   FID 9.55 on MS-COCO, with 9.34 for Stable Diffusion v1.5 itself (paper, table 2)
#
# Settings are the published ones (3 584 captions are 56 on each of 64 GPUs), and environment
# variables change them: UPDATES=1000 runs/align.sh … The same command continues a run that was stopped.
set -euo pipefail
cd "$(dirname "$0")/.." # to which paths are relative
. runs/launch.sh
if [ $# -lt 3 ]; then
  echo "usage: $0 WEIGHTS CAPTIONS OUTPUT [OPTIONS…]" >&2
  exit 2
fi
weights=$1 captions=$2 output=$3
shift 3

# CLIP's text encoder, unless the weights have it.
clip=()
[ -d "$weights/text_encoder" ] ||
  clip=(--stable-diffusion "${STABLE_DIFFUSION:-stable-diffusion-v1-5/stable-diffusion-v1-5}")

launch align \
  --weights "$weights" --output "$output" --data "$captions" ${clip[@]+"${clip[@]}"} \
  --updates "${UPDATES:-${STEPS:-300000}}" \
  --batch-size "${BATCH_SIZE:-3584}" --micro-batch-size "${MICRO_BATCH_SIZE:-56}" \
  --learning-rate "${LEARNING_RATE:-1e-3}" "$@"
