#!/usr/bin/env bash
# FID of 30 000 captions of MS-COCO 2014 as the paper measures it (section 4.2).
#
#   command    runs/coco_fid.sh WEIGHTS CAPTIONS PHOTOGRAPHS FEATURES OUTPUT
#              [OPTIONS OF kosmosg evaluate coco…]
#              CAPTIONS: captions_val2014.json; PHOTOGRAPHS: val2014; FEATURES: the weights of FID's
#              Inception; docs/evaluation.md says where they are
#   hardware   any number of GPUs with 12 GB or more; 15 GB of disk for the images
#   duration   three days on an A100, nine hours on 8 (estimate: 30 000 images of 250 steps at 30
#              guided steps a second)
#   cost       about 140 dollars, at 2 an hour (estimate)
#   expected   FID 10.99; Stable Diffusion v1.5 9.34 (paper, table 1); not measured by us
#
# BASELINE=1 takes WEIGHTS for a pipeline of diffusers, such as Stable Diffusion v1.5. The same
# command continues a run that was stopped.
set -euo pipefail
cd "$(dirname "$0")/.." # to which paths are relative
. runs/launch.sh
if [ $# -lt 5 ]; then
  echo "usage: $0 WEIGHTS CAPTIONS PHOTOGRAPHS FEATURES OUTPUT [OPTIONS…]" >&2
  exit 2
fi
weights=$1 captions=$2 photographs=$3 features=$4 output=$5
shift 5

evaluate coco "$weights" \
  --captions "$captions" --photographs "$photographs" --features "$features" --output "$output" \
  --count "${COUNT:-30000}" --steps "${STEPS:-250}" --scheduler "${SCHEDULER:-DDIM}" \
  --guidance-scale "${GUIDANCE_SCALE:-3.0}" --batch "${BATCH:-16}" "$@"
