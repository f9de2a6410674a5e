#!/usr/bin/env bash
# Builds longnet on a machine with an NVIDIA GPU and no network, runs the GPU tests and measures
# attention; prints a short table last.
#
#   bench/gpu_machine.sh [-b FOLDER] [-p FOLDER] [-o OPTIONS] [-t] [LOGS]
#
#   -b FOLDER    nothing is compiled: _core.abi3.so and liblongnet_cuda.so are there
#   -p FOLDER    where Python also looks, such as a checkout of torchscale
#   -o OPTIONS   more options of bench/attention.py, such as '--only paper,rates'
#   -t           no tests
#   LOGS         folder of the logs and results (default: runs/gpu_machine)
#
# Needs Python 3.11 or later ($PYTHON, else python3) with NumPy, ml_dtypes, safetensors, tqdm,
# pytest, pytest-timeout, hypothesis and PyTorch; to build, setuptools, a C compiler and nvcc too.
set -u
cd "$(dirname "$0")/.." || exit

built='' extra='' options='' tests=yes
while getopts b:p:o:t option; do
    case $option in
    b) built=$(realpath "$OPTARG") ;;
    p) extra=$(realpath "$OPTARG") ;;
    o) options=$OPTARG ;;
    t) tests='' ;;
    *) sed -n '5,11s/^# *//p' "$0" >&2 && exit 2 ;;
    esac
done
shift $((OPTIND - 1))
logs=${1:-runs/gpu_machine}
mkdir -p "$logs" && logs=$(realpath --relative-to=. "$logs") || exit
rm -f "$logs"/{machine,build,tests,bench}.log
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT

export PYTHONPATH=$site${extra:+:$extra}${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
summary='' failed=0

# step NAME COMMAND...: its output goes to a log, its last line to the summary.
step() {
    local name=$1 log=$logs/$1.log start=$SECONDS result
    shift
    echo "== $name" >&2
    "$@" >"$log" 2>&1
    result=$?
    if [ $result = 0 ]; then result=ok; else
        result="failed ($result)" failed=1
        tail -n 20 "$log" >&2
    fi
    summary+=$(printf '%-8s %-12s %5s s' "$name" "$result" $((SECONDS - start)))$'\n'
    [ "$result" = ok ]
}

machine() {
    uname -sr
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    "$python" --version
    if [ -z "$built" ]; then nvcc --version || /usr/local/cuda/bin/nvcc --version; fi
}

build() {
    if [ -n "$built" ]; then
        cp -r longnet "$site" &&
            cp "$built"/_core.abi3.so "$built"/liblongnet_cuda.so "$site/longnet"
    else
        LONGNET_CUDA=1 "$python" -m pip install --no-index --no-build-isolation --no-deps \
            --target "$site" .
    fi && LONGNET_REQUIRE_CUDA=1 "$python" -P -m longnet info
}

gpu_tests() {
    LONGNET_REQUIRE_CUDA=1 "$python" -P -m pytest -q -m gpu -p no:cacheprovider tests
}

attention() {
    # shellcheck disable=SC2086 # options are words
    "$python" -P bench/attention.py --device cuda --save "$logs" $options
}

step machine machine
if step build build; then
    [ -z "$tests" ] || step tests gpu_tests
    step bench attention
fi

echo
cat "$logs/machine.log"
echo
printf '%s' "$summary"
[ -z "$tests" ] || [ ! -f "$logs/tests.log" ] || tail -n 1 "$logs/tests.log"
if [ -f "$logs/bench.log" ]; then sed -n '/^what must hold/,$p' "$logs/bench.log"; fi
echo "logs and results: $logs"
exit $failed
