# The server without Cog's own tools: the files and the server that Cog's image has, for any user.
#
#   make image                                         # for NVIDIA GPUs and CPUs; writes .cog/ first
#   make image BUILD="--build-arg TORCH=2.11.0+cpu --build-arg PIP=--extra-index-url=…"   # CPU alone
#
# torch's wheels bring CUDA with them, so that any base with Python 3.11 and pip will do; the driver
# comes from the machine. Without PIP, torch is what pip finds for itself.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
ARG TORCH=2.11.0
ARG PIP=
WORKDIR /src
# torch comes first and pinned, so that no other package chooses its version. What follows the
# marked line (controlnet-aux and its torchvision) has no build for every torch, and is left out of
# images whose torch is another one.
COPY requirements.lock ./
RUN python -m pip install --no-cache-dir --no-compile ${PIP} torch==${TORCH} \
    && if [ "${TORCH%%+*}" = 2.11.0 ]; then cat requirements.lock; \
       else sed '/^# In the container alone/,$d' requirements.lock; fi \
       | sed '/^torch==/d' > /tmp/requirements.txt \
    && python -m pip install --no-cache-dir --no-compile ${PIP} cog==0.23.1 -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt
COPY . ./
# Nothing is written but below /tmp: the root may be read-only, and the user any number.
ENV PORT=5000 HOME=/tmp HF_HOME=/tmp/huggingface PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    COG_PREDICT_TYPE_STUB=predict.py:Predictor
USER 1000:1000
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 \
    CMD ["python", "-c", "import json, os, sys, urllib.request as r; sys.exit(json.load(r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health-check', timeout=4))['status'] not in ('READY', 'BUSY'))"]
# A request that is running is finished after SIGTERM: stop with a time-out that it needs.
CMD ["python", "-m", "cog.server.http", "--host", "0.0.0.0"]
