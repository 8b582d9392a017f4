#!/usr/bin/env bash
# Everything that needs a GPU, in at most eight minutes, what matters first: benchmarks/gpu/check.py.
#   benchmarks/gpu_check.sh [OUTPUT FOLDER [FOLDER OF WHEELS [PARTS]]]
# Needs python3 with torch, Triton, pytest and, where no library of this Python is in sure_fast/, pybind11, ninja, setuptools
# and nvcc; what else is missing (nibabel, monai) is installed from the wheels, without a network.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${2:-}" ]; then
  python3 -m pip install --quiet --no-index --no-deps --find-links "$2" "$2"/*.whl
fi
exec python3 -m benchmarks.gpu.check --output "${1:-benchmarks/results}" ${3:+--parts "$3"}
