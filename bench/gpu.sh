#!/usr/bin/env bash
# All that awaits a GPU, in a quarter of an hour and without a network: docs/gpu.md says what. `bench/gpu.sh --help` lists
# the stages and the variables.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 2
python=${PYTHON:-$(command -v python3 || command -v python || echo python3)}
wheels=${GPU_WHEELS:-$root/wheels}
packages=$root/build/gpu-packages

if compgen -G "$wheels/*.whl" >/dev/null && [[ ! $packages/.unpacked -nt $wheels ]]; then
  if "$python" -m pip --disable-pip-version-check install --quiet --no-index --no-deps --no-compile --upgrade \
    --target "$packages" "$wheels"/*.whl; then
    touch "$packages/.unpacked"
  else
    echo "gpu.sh: the wheels of $wheels can't be installed; what needs them will fail" >&2
  fi
fi
export PYTHONPATH=$root:$root/gpuless/src:$packages${PYTHONPATH:+:$PYTHONPATH}
exec "$python" -m bench.gpu "$@"
