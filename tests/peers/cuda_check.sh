#!/usr/bin/env bash
# Compiles and type-checks the feature `cuda` without a GPU, with the CUDA compiler and libraries from PyPI.
#
#     tests/peers/cuda_check.sh [FOLDER]
#
# FOLDER (default: in the cache of the user) contains the CUDA packages, about 2 GB, and the build. The first run takes about ten minutes
# on two cores. No tests are run, because they require a GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="${1:-${XDG_CACHE_HOME:-$HOME/.cache}/freetumor/cuda}"
mkdir -p "$folder"
if [ ! -x "$folder/venv/bin/pip" ]; then
    python3 -m venv "$folder/venv"
fi
# cudarc 0.19 does not support 13.5.
"$folder/venv/bin/pip" install --quiet 'cuda-toolkit[nvcc,cudart,cccl,cublas,curand,nvrtc]==13.0.*'
home=$("$folder/venv/bin/python" -c 'import nvidia.cu13 as cuda; print(list(cuda.__path__)[0])')
# Build scripts expect the libraries in lib64; the wheels have them in lib.
[ -e "$home/lib64" ] || ln -s lib "$home/lib64"
export CUDA_HOME="$home" CUDA_PATH="$home" CUDA_ROOT="$home" CUDA_TOOLKIT_ROOT_DIR="$home" CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-90}"
export PATH="$home/bin:$PATH" CARGO_TARGET_DIR="$folder/target"
cargo check --locked --lib --bins --features cuda
echo "the feature cuda compiles"
