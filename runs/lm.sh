#!/usr/bin/env bash
# Stage 1 at full size: the language model reads texts, captioned images and documents with
# images between (paper, sections 2.1 and 3.2). The authors published neither code nor data of it.
#
#   command    runs/lm.sh WEIGHTS TEXT CAPTIONS DOCUMENTS OUTPUT [OPTIONS OF kosmosg train lm…]
#              WEIGHTS from `kosmosg new` (with --clip) or `kosmosg convert --from-kosmos2`, the
#              data as for --data, without a weight
#   hardware   8 GPUs with 80 GB (estimate, nothing of full size has been trained by us)
#   duration   not published. 360 billion tokens through 1.7 billion parameters, with gradient
#              checkpointing, are 5e21 operations: four weeks on 8 GPUs at 250 teraflops (estimate)
#   expected   none published for this stage alone
#
# Settings are the paper's, and environment variables change them: UPDATES=1000 runs/lm.sh … The
# shares of the data are the paper's of tokens; here they count documents, so set TEXT_WEIGHT and so
# on by the length of yours. The same command continues a run that was stopped.
set -euo pipefail
cd "$(dirname "$0")/.." # to which paths are relative
. runs/launch.sh
if [ $# -lt 5 ]; then
  echo "usage: $0 WEIGHTS TEXT CAPTIONS DOCUMENTS OUTPUT [OPTIONS…]" >&2
  exit 2
fi
weights=$1 text=$2 captions=$3 documents=$4 output=$5
shift 5

# 576 sequences of 2048 tokens are 1.2 million. Documents are packed in 64 streams, of which each gives
# 9 of them, so that the sequences are the same on any number of GPUs that divides 64.
launch lm \
  --weights "$weights" --output "$output" \
  --data "$text:${TEXT_WEIGHT:-5}" \
  --data "$captions:${CAPTIONS_WEIGHT:-5}" \
  --data "$documents:${DOCUMENTS_WEIGHT:-2}" \
  --tokens "${TOKENS:-2048}" --packing-streams "${PACKING_STREAMS:-${LANES:-64}}" \
  --updates "${UPDATES:-${STEPS:-300000}}" \
  --batch-size "${BATCH_SIZE:-576}" --micro-batch-size "${MICRO_BATCH_SIZE:-4}" \
  --learning-rate "${LEARNING_RATE:-2e-4}" "$@"
