# What the script tests share. Each test runs in its own empty folder, under `set -euo pipefail`.

scripts=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
unset FLEDGE_TORCH FLEDGE_CACHE FLEDGE_ARROW FLEDGE_PYTHON PYTHONPATH

fail() {
    echo "FAILED at line ${BASH_LINENO[1]}: $*"
    exit 1
}

# Runs a command and keeps its output (both streams) in $output and its exit status in $status.
run() {
    status=0
    output=$("$@" 2>&1) || status=$?
    echo "\$ $* -> $status"
    echo "$output"
}

succeeds() { run "$@"; ((status == 0)) || fail "'$*' exited with $status"; }
fails() { run "$@"; ((status != 0)) || fail "'$*' succeeded"; }
says() { [[ $output == *"$1"* ]] || fail "the output has no '$1'"; }
says_only() { says "$1"; [[ $output != *$'\n'* ]] || fail "the output has more than one line"; }
says_nothing() { [[ -z $output ]] || fail "there is output"; }
same() { [[ $1 == "$2" ]] || fail "'$1' is not '$2'"; }

# A tiny checkout in ./repo whose wheels.lock names tiny wheels in ./index, the only place that pip looks in.
make_repo() {
    mkdir -p repo/scripts index
    cp "$scripts/setup" "$scripts/fetch_wheels.py" repo/scripts/
    python3 "$scripts/tests/make_wheels.py" index repo/scripts/wheels.lock
    # Tiny wheels need little room: these tests must pass on a disk that has no 12 GB to spare.
    sed -i -E '/^NEEDED_BYTES/s/: [0-9_]+/: 2_000_000/g' repo/scripts/fetch_wheels.py
    export PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD/index PIP_NO_CACHE_DIR=1
    setup=(repo/scripts/setup --no-cuda)
}

library=repo/.deps/torch/lib/libtorch_cpu.so
model=repo/models/tiny/tiny.gguf

is_set_up() {
    same "$(cat $library)" "cpu library"
    same "$(cat "$(readlink -f repo/.deps/torch)/../nvidia/cu13/lib/libcudart.so.13")" "cuda runtime"
    same "$(cat repo/.deps/site-*/nvidia/cu13/lib/libnvrtc.so.13)" "kernel compiler"
    same "$(cat repo/.deps/site-*/nvidia/cu13/lib/libnvrtc-builtins.so.13.0)" "its builtins"
    same "$(cat $model)" "model"
    local left
    left=$(find repo/.deps repo/.cache repo/models -name 'tmp-*' -o -name '*.tmp')
    same "$left" ""
}

# Makes a later Python process run $1 when it starts.
at_python_start() {
    mkdir -p startup
    echo "$1" >startup/sitecustomize.py
    export PYTHONPATH=$PWD/startup
}

# Leaves on PATH only the tools that setup uses, without those named; `swift` is one of version 6.3.
limit_tools_without() {
    mkdir tools
    local tool
    for tool in bash env python3 git make clang++; do
        local path
        path=$(command -v $tool)
        [[ $tool == python3 ]] && path=$(python3 -c 'import sys; print(sys.executable)')
        ln -s "$path" tools/$tool
    done
    fake_swift 6.3.1
    for tool in "$@"; do
        rm "tools/$tool"
    done
    PATH=$PWD/tools
}

fake_swift() {
    printf '#!/usr/bin/env bash\necho "Swift version %s (swift-RELEASE)"\n' "$1" >tools/swift
    /bin/chmod +x tools/swift
}
