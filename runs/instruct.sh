#!/usr/bin/env bash
# Stage 3 at full size: instruction tuning through the frozen U-Net, on compositional samples, edits
# and captioned images (paper, sections 2.3 and 3.2).
#
#   command    runs/instruct.sh WEIGHTS COMPOSITIONAL EDITS CAPTIONS OUTPUT [OPTIONS OF kosmosg
#              train instruct…]
#              WEIGHTS are a result of stage 2, the data as for --data, without a weight: folders of
#              shards
#   hardware   the authors' 256 V100 (their scripts: 64 GPUs); here 8 GPUs with 80 GB (estimate);
#              CONFIG=runs/accelerate/fsdp.yaml shares weights and moments out among smaller ones
#   duration   three days on the authors' (paper, section 3.2); 16 days on 8 A100 at 30 % of their
#              peak, a quarter more with gradient checkpointing (computed: python -m kosmosg estimate
#              --preset published --gpus 8 --stage instruct)
#   expected   DreamBench: DINO 0.694, CLIP-I 0.847, CLIP-T 0.287; MS-COCO: FID 10.99 (paper, table 1)
#
# Settings are the published ones (1 024 samples are 16 on each of 64 GPUs), and environment
# variables change them: UPDATES=1000 runs/instruct.sh … The same command continues a run that was
# stopped.
set -euo pipefail
cd "$(dirname "$0")/.." # to which paths are relative
. runs/launch.sh
if [ $# -lt 5 ]; then
  echo "usage: $0 WEIGHTS COMPOSITIONAL EDITS CAPTIONS OUTPUT [OPTIONS…]" >&2
  exit 2
fi
weights=$1 compositional=$2 edits=$3 captions=$4 output=$5
shift 5

launch instruct \
  --weights "$weights" --output "$output" \
  --data "$compositional:${COMPOSITIONAL_WEIGHT:-2}" \
  --data "$edits:${EDITS_WEIGHT:-2}" \
  --data "$captions:${CAPTIONS_WEIGHT:-1}" \
  --drop-text 0.5 --keep-background 0.5 --drop-caption 0.5 \
  --updates "${UPDATES:-${STEPS:-200000}}" \
  --batch-size "${BATCH_SIZE:-1024}" --micro-batch-size "${MICRO_BATCH_SIZE:-16}" \
  --learning-rate "${LEARNING_RATE:-1e-3}" "$@"
