# Tests of scripts/setup on tiny wheels: what the first run does, and what every kind of interruption leaves it to mend.

test_first_run_then_nothing_to_do() {
    make_repo
    succeeds "${setup[@]}"
    is_set_up
    [[ ! -e repo/.deps/torch/lib/libtorch_cuda.so ]] || fail "the CPU set-up holds CUDA libraries"
    [[ -z $(find repo/.deps -name '*.alt.so*') ]] || fail "a second NVRTC was unpacked"
    local before
    before=$(state)
    # No network, no cache: what is there is enough.
    rm -rf repo/.cache index
    succeeds "${setup[@]}"
    says_nothing
    same "$(state)" "$before"
}

state() { find repo/.deps repo/models ! -name .lock -printf '%p %i %T@\n' | sort; }

test_cuda_is_added_and_then_kept() {
    make_repo
    succeeds "${setup[@]}"
    succeeds repo/scripts/setup --cuda
    is_set_up
    same "$(cat repo/.deps/torch/lib/libtorch_cuda.so)" "cuda library"
    same "$(cat repo/.deps/site-*/nvidia/cu13/lib/libcublas.so.13)" "cublas"
    [[ ! -e repo/.deps/torch/lib/libtorch_python.so ]] || fail "libtorch_python.so was unpacked"
    succeeds repo/scripts/setup
    says_nothing
}

test_no_model() {
    make_repo
    succeeds "${setup[@]}" --no-model
    [[ -e $library && ! -e repo/models ]] || fail "--no-model fetched the model"
}

test_unknown_argument() {
    make_repo
    fails repo/scripts/setup --gpu
    says "unknown argument --gpu"
}

test_truncated_wheel_in_the_cache() {
    make_repo
    mkdir -p repo/.cache/wheels
    cp index/*.whl repo/.cache/wheels/
    truncate -s 100 repo/.cache/wheels/torch-*.whl
    succeeds "${setup[@]}"
    says "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl is damaged"
    [[ $output != *"fetching nvidia-cuda-runtime"* ]] || fail "a whole wheel was fetched again"
    is_set_up
}

test_download_with_another_digest() {
    make_repo
    printf 'x' >>index/torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl
    fails "${setup[@]}"
    says "could not fetch torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl with the sha256 in wheels.lock"
    same "$(find repo/.cache/wheels -name '*.whl')" ""
    [[ ! -e repo/.deps/torch ]] || fail "an unchecked wheel was unpacked"
}

test_killed_during_a_download() {
    make_repo
    # A pip that leaves half a file where it was told to, and takes setup with it.
    mkdir -p killer/pip
    touch killer/pip/__init__.py
    cat >killer/pip/__main__.py <<'PIP'
import os, signal, sys
if "download" in sys.argv:
    folder = sys.argv[sys.argv.index("--dest") + 1]
    open(os.path.join(folder, "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl"), "w").write("half")
    os.kill(os.getppid(), signal.SIGKILL)
PIP
    PYTHONPATH=$PWD/killer fails "${setup[@]}"
    same "$status" 137
    [[ -n $(find repo/.cache/wheels -path '*/tmp-*' -name 'torch-*.whl') ]] || fail "the half file is not there"
    succeeds "${setup[@]}"
    is_set_up
}

test_killed_during_unpacking() {
    make_repo
    at_python_start '
import os, signal, zipfile
extract = zipfile.ZipFile.extract
def extract_then_die(self, member, *rest):
    path = extract(self, member, *rest)
    if "libtorch_cpu" in path:
        os.kill(os.getpid(), signal.SIGKILL)
    return path
zipfile.ZipFile.extract = extract_then_die'
    fails "${setup[@]}"
    same "$status" 137
    [[ -n $(find repo/.deps -path '*/tmp-*' -name libtorch_cpu.so) ]] || fail "unpacking was not under way"
    [[ ! -e repo/.deps/torch ]] || fail "a half folder is in use"
    unset PYTHONPATH
    succeeds "${setup[@]}"
    is_set_up
}

test_folder_without_its_stamp() {
    make_repo
    succeeds "${setup[@]}"
    rm repo/.deps/site-*/.unpacked repo/.deps/site-*/torch/version.py
    succeeds "${setup[@]}"
    says "unpacking libtorch"
    is_set_up
    [[ -e repo/.deps/torch/version.py ]] || fail "the folder was not unpacked again"
}

test_damaged_results() {
    make_repo
    succeeds "${setup[@]}"
    rm $library
    printf 'x' >>$model
    succeeds "${setup[@]}"
    says "tiny.gguf is damaged"
    is_set_up
}

test_two_at_once() {
    make_repo
    "${setup[@]}" >first 2>&1 &
    local first=$!
    "${setup[@]}" >second 2>&1 &
    local second=$!
    wait $first || fail "the first failed: $(cat first)"
    wait $second || fail "the second failed: $(cat second)"
    same "$(cat first second | grep -c 'unpacking libtorch')" 1
    is_set_up
}

test_shared_cache() {
    make_repo
    export FLEDGE_CACHE=$PWD/shared
    succeeds "${setup[@]}"
    rm -rf repo/.deps repo/models index
    succeeds "${setup[@]}"
    same "$(cat $library)" "cpu library"
    [[ ! -e repo/.cache ]] || fail "FLEDGE_CACHE was not used"
}

test_new_lock_replaces_the_old_folder() {
    make_repo
    succeeds "${setup[@]}"
    echo "# changed" >>repo/scripts/wheels.lock
    succeeds "${setup[@]}"
    is_set_up
    same "$(find repo/.deps -maxdepth 1 -name 'site-*' | wc -l)" 1
}

test_low_disk() {
    make_repo
    at_python_start '
import collections, shutil
shutil.disk_usage = lambda path: collections.namedtuple("Usage", "free")(1000000)'
    fails "${setup[@]}"
    says_only "0.0 GB free in"
}

make_install() { # make_install FOLDER VERSION
    mkdir -p "$1/lib" "$1/include/ATen" "$1/include/torch/csrc/api/include/torch"
    echo "__version__ = '$2'" >"$1/version.py"
    touch "$1/lib/libtorch_cpu.so" "$1/include/ATen/ATen.h" "$1/include/torch/csrc/api/include/torch/torch.h"
}

test_install_named_by_fledge_torch() {
    make_repo
    make_install site/torch 2.11.0+cu130
    FLEDGE_TORCH=site/torch succeeds "${setup[@]}" --no-model
    same "$(readlink repo/.deps/torch)" "$PWD/site/torch"
    succeeds "${setup[@]}" --no-model
    says_only "as FLEDGE_TORCH said before"
}

test_install_of_another_version() {
    make_repo
    make_install site/torch 2.10.1
    FLEDGE_TORCH=site/torch fails "${setup[@]}"
    says_only "is torch 2.10.1, and 2.11.0 is needed"
    [[ ! -e repo/.deps/torch ]] || fail "it was linked"
}

test_install_that_is_none() {
    make_repo
    FLEDGE_TORCH=$PWD/nowhere fails "${setup[@]}"
    says_only "has no version.py"
    make_install site/torch 2.11.0
    rm -r site/torch/include
    FLEDGE_TORCH=site/torch fails "${setup[@]}"
    says_only "has no include/ATen/ATen.h"
}

test_missing_tools() {
    make_repo
    local path=$PATH tool
    for tool in swift python3 git make; do
        limit_tools_without $tool
        fails "${setup[@]}"
        says_only "setup: $tool is missing: "
        PATH=$path
        rm -r tools
    done
}

test_missing_compiler() {
    make_repo
    limit_tools_without clang++
    fails "${setup[@]}"
    says_only "sudo apt install libstdc++"
}

test_missing_pip() {
    make_repo
    mkdir -p none/pip
    touch none/pip/__init__.py
    echo 'raise SystemExit(1)' >none/pip/__main__.py
    PYTHONPATH=$PWD/none fails "${setup[@]}"
    says_only "setup: pip is missing: sudo apt install python3-pip"
}

test_old_swift() {
    make_repo
    limit_tools_without
    fake_swift 6.2.4
    fails "${setup[@]}"
    says_only "Swift 6.2 is too old: install Swift 6.3 or newer"
}
