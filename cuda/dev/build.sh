#!/bin/sh
# Builds cuda/dev/NAME.so from the tree: cuda/dev/build.sh NAME [nvcc options]
set -e
cd "$(dirname "$0")/../.."
name=$1
shift
nvcc -std=c++17 -O3 -lineinfo -gencode=arch=compute_90a,code=sm_90a -Xcompiler=-fPIC -shared -I. -Icsrc "$@" \
    cuda/dilated_attention_*sm90*.cu cuda/dev/shim.cu -o cuda/dev/"$name".so
