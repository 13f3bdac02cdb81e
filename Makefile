PYTHON ?= python3
PORT ?= 5000
REQUEST ?= samples/penguin.json
WEIGHTS ?=
SIZE ?= full
BENCH ?=
IMAGE ?= kosmos-g
BUILD ?=
# What is drawn with unless WEIGHTS= or KOSMOSG_WEIGHTS names others: the small trained model.
DRAW_WITH = $(or $(WEIGHTS),$(KOSMOSG_WEIGHTS),weights/miniature)
RUN = .venv/bin/python
# PORT is that of the server unless it is given.
DEMO_PORT = $(if $(filter command% environment,$(origin PORT)),$(PORT),7860)

.PHONY: help setup predict serve demo test check bench lock image image-test
help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

setup: .venv/complete  ## create the environment in .venv

# torch comes first and pinned, so that no other package chooses its version.
.venv/complete: requirements.lock requirements-dev.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install torch==2.13.0
	sed '/^# In the container alone/,$$d' requirements.lock | .venv/bin/pip install -r /dev/stdin -r requirements-dev.txt
	touch $@

predict: setup  ## draw one request: REQUEST=samples/….json WEIGHTS=directory
	$(RUN) -m scripts.predict $(REQUEST) --weights "$(DRAW_WITH)"

serve: setup  ## leave the server running: PORT=5000 WEIGHTS=directory
	$(RUN) -m scripts.serve --port $(PORT) --weights "$(DRAW_WITH)"

demo: setup  ## open the page in the browser: PORT=7860 WEIGHTS=directory TARGET=http://host:port
	$(RUN) -m kosmosg demo --port $(DEMO_PORT) $(if $(TARGET),--target "$(TARGET)",--weights "$(DRAW_WITH)")

test: setup  ## run the tests; WEIGHTS=directory adds those of full-size weights
	KOSMOSG_TEST_WEIGHTS="$(WEIGHTS)" $(RUN) -m pytest -n auto --dist loadfile

check: setup  ## lint, format, types, layers, documents
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/lint-imports
	$(RUN) scripts/cog_schema.py predict.py --output .cog/openapi_schema.json
	$(RUN) -m scripts.check_docs

bench: setup  ## measure speed and memory: SIZE=small for a try, BENCH="--only conditioning"
	$(RUN) -m benchmarks --size $(SIZE) $(BENCH)

# For the container's Python and system; what torch brings with it differs from build to build.
lock: setup  ## pin all packages of the container: requirements.txt → requirements.lock
	$(RUN) -m scripts.lock

image: setup  ## build the container without Cog: IMAGE=name BUILD="--build-arg …"
	$(RUN) scripts/cog_schema.py predict.py --output .cog/openapi_schema.json
	docker build -t $(IMAGE) $(BUILD) .

image-test: setup  ## run the container and check it: IMAGE=name
	$(RUN) -m scripts.image_test $(IMAGE)
