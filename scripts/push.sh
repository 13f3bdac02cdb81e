#!/usr/bin/env bash
# Build or push with Cog from a clean tree.
#
#   scripts/push.sh r8.im/YOU/kosmos-g        cog push NAME --separate-weights
#   scripts/push.sh --build kosmos-g          cog build --separate-weights -t NAME
#
# With --separate-weights Cog makes layers of all files of 10 MB or more, wherever they lie, and Docker
# then misses those that .dockerignore leaves out: the environment, downloads, outputs. So the files
# that Git knows, the built weights and what is fetched for ControlNet are put into a folder of their
# own, linked where the file system can, and Cog runs there.
set -euo pipefail
cd "$(dirname "$0")/.."

command=push
if [ "${1:-}" = --build ]; then
  command=build
  shift
fi
if [ $# -ne 1 ]; then
  echo "usage: scripts/push.sh [--build] NAME, such as r8.im/you/kosmos-g" >&2
  exit 2
fi
name=$1
if ! command -v cog >/dev/null; then
  echo "error: cog is not installed: https://github.com/replicate/cog#install" >&2
  exit 1
fi
if [ ! -f weights/kosmos-g/model_index.json ]; then
  echo "error: there are no weights in weights/kosmos-g; docs/weights.md says how to make them." >&2
  exit 1
fi

# Beside the project, so that files of gigabytes can be linked and need not be copied.
staged=$(mktemp -d "${TMPDIR_STAGE:-..}/kosmos-g-push-XXXXXX")
trap 'rm -rf "$staged"' EXIT
git ls-files -z | tar --null --files-from=- --create --file=- | tar -x -C "$staged"
for folder in weights/kosmos-g weights/controlnet weights/annotators; do
  [ -d "$folder" ] || continue
  # A link to a folder is followed: Docker would not.
  mkdir -p "$staged/$folder"
  cp -RLl "$folder/." "$staged/$folder/" 2>/dev/null || cp -RL "$folder/." "$staged/$folder/"
done
find "$staged/weights" -name '*.py' -delete # it would keep its folder out of the layer of weights
cd "$staged"
case $command in
  push) cog push "$name" --separate-weights ;;
  build) cog build --separate-weights -t "$name" ;;
esac
