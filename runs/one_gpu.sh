#!/usr/bin/env bash
# A KOSMOS-G of your own from public parts, on one GPU: Kosmos-2 and Stable Diffusion v1.5, converted
# (stage 1) → captions (stage 2) → public instruction data (stage 3) → DreamBench's table and a sheet
# of images.
#
#   command    runs/one_gpu.sh OUTPUT [PRESET]
#              PRESET: 80, 48 or 24, the memory of the card in GB (default 80); toy, to see it run
#   hardware   one GPU; GPUS=8 takes several, each with the whole networks. 40 GB of disk; the data
#              are streamed from the Hub (stage 2 about 1 GB, stage 3 some hundreds)
#   duration   hours of the card, all computed from operations at 25 to 40 % of its dense peak, none
#              measured: a caption of stage 2 takes 0.26 teraflops, a sample of stage 3 6.0 (4.5 if
#              AlignerNet alone is trained)
#
#              preset, card, dollars an hour   stage 1  stage 2     stage 3   table  in all      dollars
#              80      H100, 3                 0.2      20 to 32    10 to 16  2      32 to 50    97 to 151
#              48      L40S, 1                 0.2      54 to 87    28 to 44  3      85 to 135   85 to 135
#              24      RTX 4090, 0.5           0.2      119 to 190  45 to 72  4      168 to 267  84 to 134
#
#              Prices are what such cards cost to rent, roughly. GB of the card in stages 2 and 3, as
#              python -m kosmosg estimate computes them: 20 and 54; 18 and 41, with Adafactor; 18 and
#              19, AlignerNet alone, because all that stage 3 trains does not fit
#   expected   not known: nothing of full size has been trained by us. The paper, with 10 and 83 times
#              the samples: DreamBench DINO 0.694, CLIP-I 0.847, CLIP-T 0.287. MetaQuery, which aligns
#              the same decoder from 25 million captions of images, reports a COCO FID of 8.69 to 8.91
#              (the paper 10.99). Losses: of this recipe none is known
#
# The same command continues a run that was stopped, at the step where it was. What may be changed by
# environment variables:
#
#   KOSMOS2, STABLE_DIFFUSION, TOKENIZER   where the parts are, as folders or Hub ids (the tokenizer:
#                                          a folder); else they are downloaded or taken from the Hub
#   CAPTIONS; SUBJECTS, EDITS, IMAGES      data of stages 2 and 3, as for --data
#   DREAMBENCH, ONLY                       the folder 'dataset' of DreamBooth, else it is cloned; one
#                                          subject of it
#   ALIGN_UPDATES, INSTRUCT_UPDATES,       see below
#   ALIGN_MICRO, INSTRUCT_MICRO, …
set -euo pipefail
cd "$(dirname "$0")/.." # to which paths are relative
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: $0 OUTPUT [PRESET: 80, 48, 24 or toy]" >&2
  exit 2
fi
output=$1 preset=${2:-80}
export PYTHON="${PYTHON:-.venv/bin/python}"

# Per preset: micro-batches of stages 2 and 3, and what else fits the memory.
align=() instruct=() dreambench=()
case $preset in
  80) align_micro=256 instruct_micro=16 ;;
  48) align_micro=128 instruct_micro=16 instruct=(--optimizer adafactor) ;;
  24) align_micro=64 instruct_micro=4 instruct=(--aligner-only) ;;
  toy)
    align_micro=2 instruct_micro=2
    export PRECISION="${PRECISION:-no}" THREADS="${THREADS:-0}" WARMUP_UPDATES=1
    export SAVE_EVERY="${SAVE_EVERY:-2}" STEPS_DREAMBENCH="${STEPS_DREAMBENCH:-1}"
    export GRADIENT_CHECKPOINTING="${GRADIENT_CHECKPOINTING:-0}"
    ALIGN_UPDATES=${ALIGN_UPDATES:-4} ALIGN_BATCH=${ALIGN_BATCH:-4}
    INSTRUCT_UPDATES=${INSTRUCT_UPDATES:-2} INSTRUCT_BATCH=${INSTRUCT_BATCH:-4}
    align=(--min-side 16) instruct=(--min-side 16)
    dreambench=(--per-prompt 1 --device cpu)
    ;;
  *)
    echo "error: there is no preset '$preset'. Choose 80, 48 or 24 (GB of the card), or toy." >&2
    exit 2
    ;;
esac
if [ "${GPUS:-1}" = 1 ]; then
  export CONFIG="${CONFIG:-none}"
else
  export LAUNCH="--num_processes $GPUS ${LAUNCH:-}"
fi
export PRECISION="${PRECISION:-bf16}"

step() { echo "== $* ($(date +%H:%M:%S))"; }

step "parts"
tokenizer=${TOKENIZER:-$output/parts/tokenizer}
[ -n "${TOKENIZER:-}" ] || "$PYTHON" -m kosmosg download tokenizer --weights "$output/parts"
export STABLE_DIFFUSION="${STABLE_DIFFUSION:-$output/parts/stable-diffusion-v1-5}"
[ "$STABLE_DIFFUSION" != "$output/parts/stable-diffusion-v1-5" ] ||
  "$PYTHON" -m kosmosg download stable-diffusion text-encoder --weights "$output/parts"

step "stage 1, from Kosmos-2"
start=$output/stage1
[ -d "$start" ] || "$PYTHON" -m kosmosg convert --from-kosmos2 \
  "${KOSMOS2:-microsoft/kosmos-2-patch14-224}" "$start" \
  --tokenizer "$tokenizer" --stable-diffusion "$STABLE_DIFFUSION" ${SIZES:+--config "$SIZES"}

# A result notes last what it was trained on.
finished() { [ -f "$output/$1/weights/training.json" ]; }

step "stage 2, on captions"
finished align || UPDATES=${ALIGN_UPDATES:-30000} BATCH_SIZE=${ALIGN_BATCH:-3584} \
  MICRO_BATCH_SIZE=${ALIGN_MICRO:-$align_micro} \
  runs/align.sh "$start" "${CAPTIONS:-hub:Geonmo/gcc12m_caption_only}" "$output/align" \
  ${align[@]+"${align[@]}"}

step "stage 3, on subjects, edits and captioned images"
finished instruct || UPDATES=${INSTRUCT_UPDATES:-2344} BATCH_SIZE=${INSTRUCT_BATCH:-1024} \
  MICRO_BATCH_SIZE=${INSTRUCT_MICRO:-$instruct_micro} \
  runs/instruct.sh "$output/align/weights" \
  "${SUBJECTS:-hub:xcpan/MetaQuery_Instruct_2.4M_512res}" \
  "${EDITS:-hub:timbrooks/instructpix2pix-clip-filtered}" \
  "${IMAGES:-hub:pixparse/cc12m-wds}" "$output/instruct" \
  --save-dtype float16 --sample-every "${SAMPLE_EVERY:-200}" ${instruct[@]+"${instruct[@]}"}

step "DreamBench"
if [ -z "${DREAMBENCH:-}" ]; then
  DREAMBENCH=$output/parts/dreambooth/dataset
  if [ ! -d "$DREAMBENCH" ]; then
    rm -rf "$output/parts/dreambooth.part"
    git clone --quiet --depth 1 https://github.com/google/dreambooth "$output/parts/dreambooth.part"
    mv "$output/parts/dreambooth.part" "$output/parts/dreambooth"
  fi
fi
STEPS=${STEPS_DREAMBENCH:-100} runs/dreambench.sh "$output/instruct/weights" "$DREAMBENCH" \
  "$output/dreambench" ${DINO:+--dino "$DINO"} ${CLIP:+--clip "$CLIP"} ${ONLY:+--only "$ONLY"} \
  ${dreambench[@]+"${dreambench[@]}"}

step "done"
echo "weights         $output/instruct/weights"
echo "table           $output/dreambench/table.md"
echo "sheet of images $output/dreambench/sheet.html"
echo "to the Hub      $PYTHON -m kosmosg upload $output/instruct/weights OWNER/NAME" \
  "--table $output/dreambench/table.md"
