#!/usr/bin/env bash
# Everything that needs a GPU, in less than nine minutes: build, operator tests, compute-sanitizer, benchmarks.
#   benchmarks/gpu_check.sh [FOLDER OF WHEELS] [OUTPUT FOLDER]
# Needs python with torch, Triton, pybind11, ninja, setuptools and pytest, nvcc, and nothing from a network: what else is
# missing (nibabel, monai) is installed from the wheels. Results go to the output folder, benchmarks/results by default.
set -uo pipefail
cd "$(dirname "$0")/.."
wheels=${1:-}
output=${2:-benchmarks/results}
mkdir -p "$output"
log=$output/gpu_check.log
: >"$log"
failed=()

step() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 begin=$SECONDS
  shift 2
  echo "== $name" | tee -a "$log"
  if timeout "$limit" "$@" >>"$log" 2>&1; then
    echo "   ok, $((SECONDS - begin)) s"
  else
    echo "   FAILED ($?), $((SECONDS - begin)) s; the end of $log:"
    tail -25 "$log"
    failed+=("$name")
  fi
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee -a "$log"
[ -z "$wheels" ] || step wheels 60 python -m pip install --no-index --no-deps --find-links "$wheels" "$wheels"/*.whl
archs=$(python -c "import torch; print('%d%d' % torch.cuda.get_device_capability())")
step build 150 env SURE_FAST_CUDA=1 SURE_FAST_CUDA_ARCHS="$archs" python setup.py build_ext --inplace
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
step info 30 python -m sure_fast.info
step tests 180 python -m pytest -q -m cuda tests/cuda/test_gpu.py -p no:cacheprovider
if command -v compute-sanitizer >/dev/null; then
  others=() # torch's own kernels are left out; the option's name depends on the version
  for option in --kernel-name-exclude --kernel-regex-exclude; do
    if [ ${#others[@]} = 0 ] && compute-sanitizer --help | grep -q -e "$option"; then others=("$option" kns=at6native); fi
  done
  for tool in memcheck racecheck; do
    step "$tool" 75 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 1 \
      ${others[@]+"${others[@]}"} python -m tests.cuda.gpu_cases
  done
else
  echo "== compute-sanitizer is not here"
  failed+=(compute-sanitizer)
fi
step benchmarks 120 python -m benchmarks.bench_gpu --output "$output/gpu.json"
echo "== ${#failed[@]} failed ${failed[*]:-}; $SECONDS s"
exit ${#failed[@]}
