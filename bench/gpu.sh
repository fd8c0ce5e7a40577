#!/usr/bin/env bash
# Everything that awaits a GPU, in one command: the op tests on its tensors, the tuner, the same tests on the tuned tables,
# the benchmarks and a picture. A stage that fails does not keep the others from running; the end names it.
#
# PYTHON is the interpreter of an environment with a CUDA build of torch and the package (pip install -e '.[test]').
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
failed=()

stage() {
  local name=$1
  shift
  echo "== $name"
  "$@" || failed+=("$name")
}

on_the_gpu() {
  EBGAN_FAST_TEST_DEVICE=cuda "$python" -m pytest -q -n 4 --dist loadgroup -p no:cacheprovider \
    tests/ops/test_gpu.py tests/ops/test_contract.py tests/ops/test_transforms.py tests/ops/test_values.py \
    tests/ops/test_repeatability.py
}

results=$("$python" -m bench.devices) || exit 1
mkdir -p "$(dirname "$results")"
stage "tests" on_the_gpu
stage "tuner" "$python" -m bench tune
stage "tests on the tuned tables" on_the_gpu
stage "benchmark" "$python" -m bench ops --device cuda --dtype float32 bfloat16 --out "$results"
for command in latency scaling memory; do
  stage "$command" "$python" -m bench "$command" --device cuda
done
stage "picture" "$python" -m bench plot "$results" "${results%.jsonl}.png"
if ((${#failed[@]})); then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "results: $results, its picture beside it; tables: git diff ebgan_fast/ops/triton/tables.json"
