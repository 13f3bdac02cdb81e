#!/usr/bin/env bash
# The three data sets of stage 3: compositional samples of Open Images, edits of InstructPix2Pix, and
# captioned images (paper, section 3.1; docs/curation.md).
#
#   command    runs/curate.sh IMAGES EDITS DOWNLOADS TOKENIZER OUTPUT [OPTIONS OF kosmosg curate
#              openimages…]
#              IMAGES is what `curate openimages` takes, such as a folder of shards of images,
#              EDITS the folder of the CLIP-filtered set, DOWNLOADS what img2dataset wrote,
#              TOKENIZER a folder with sentencepiece.bpe.model and dict.txt; OUTPUT gets the folders
#              compositional, edits and captions, which runs/instruct.sh takes. A - in the place of
#              one of the first three leaves it out
#   hardware   for the 9 million images of the paper, 8 GPUs with 80 GB and 64 cores (estimate), with
#              --workers caption=2x1 --workers entities=5x1 --workers masks=1x1; for fewer images one
#              GPU with 48 GB
#   duration   a day and a half on these (estimate, see docs/curation.md)
#   cost       about 270 GPU hours (estimate) and 1 750 core hours (from measured times) for the 9
#              million, 550 dollars at 2 dollars a GPU hour with 8 cores; 11 to 22 TB of disk as PNG,
#              a quarter of it as JPEG
#   expected   compositional samples of a good part of the images; how many is not measured
#
# The same command continues a run that was stopped. ADDRESS=auto runs it on the Ray cluster that this
# machine belongs to; OUTPUT and all sources are then folders that all of its machines see.
set -euo pipefail
cd "$(dirname "$0")/.." # to which paths are relative
if [ $# -lt 5 ]; then
  echo "usage: $0 IMAGES EDITS DOWNLOADS TOKENIZER OUTPUT [OPTIONS…]" >&2
  exit 2
fi
images=$1 edits=$2 downloads=$3 tokenizer=$4 output=$5
shift 5

python=${PYTHON:-.venv/bin/python}
engine=()
[ -z "${ADDRESS:-}" ] || engine=(--address "$ADDRESS")
if [ -n "${CPUS:-}" ]; then engine+=(--cpus "$CPUS"); fi
if [ -n "${IN_PROCESS:-}" ]; then engine+=(--in-process); fi
engine+=(--per-shard "${PER_SHARD:-256}")

if [ "$downloads" != - ]; then
  "$python" -m kosmosg curate captions "$downloads" "$output/captions" "${engine[@]}" \
    --tokenizer "$tokenizer" --min-side "${MIN_SIDE:-384}" --max-tokens "${MAX_TOKENS:-128}"
fi
if [ "$edits" != - ]; then
  "$python" -m kosmosg curate instructpix2pix "$edits" "$output/edits" "${engine[@]}" \
    --side "${SIDE:-512}" --image-format "${IMAGE_FORMAT:-PNG}"
fi
if [ "$images" != - ]; then
  "$python" -m kosmosg curate openimages "$images" "$output/compositional" "${engine[@]}" \
    --captioner "${CAPTIONER:-Salesforce/blip2-opt-6.7b}" \
    --language-model "${LANGUAGE_MODEL:-Qwen/Qwen2.5-7B-Instruct}" \
    --segmenter "${SEGMENTER:-CIDAS/clipseg-rd64-refined}" \
    --threshold "${THRESHOLD:-0.3}" --side "${SIDE:-512}" --image-format "${IMAGE_FORMAT:-PNG}" "$@"
fi
