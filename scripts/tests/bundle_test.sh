# Tests of scripts/bundle, and of the start script that it puts in the bundle.

make_bundle() { # A bundle whose binary prints what it was started with.
    mkdir -p "bundle/libexec" "site/nvidia/cu13/lib" "site/nvidia/nccl/lib"
    cp "$scripts/start" bundle/fledge
    printf '#!/bin/bash\necho "$LD_LIBRARY_PATH|$FLEDGE_TORCH|$*"\n' >bundle/libexec/fledge
    chmod +x bundle/libexec/fledge
    make_torch site/torch 2.11.0+cu130
    unset LD_LIBRARY_PATH
    expected="$PWD/site/torch/lib:$PWD/site/nvidia/cu13/lib:$PWD/site/nvidia/nccl/lib|$PWD/site/torch|train a b"
}

make_torch() { # make_torch FOLDER VERSION
    mkdir -p "$1/lib"
    printf "__version__ = '%s'\n" "$2" >"$1/version.py"
    echo 'raise SystemExit("torch was imported")' >"$1/__init__.py"
    touch "$1/lib/libtorch_cpu.so"
}

test_start_with_fledge_torch() {
    make_bundle
    FLEDGE_TORCH=site/torch succeeds bundle/fledge train a b
    same "$output" "$expected"
}

test_start_with_torch_of_python_not_imported() {
    make_bundle
    PYTHONPATH=$PWD/site succeeds bundle/fledge train a b
    same "$output" "$expected"
}

test_start_with_torch_beside_through_a_link() {
    make_bundle
    mkdir bundle/.deps
    ln -s "$PWD/site/torch" bundle/.deps/torch
    ln -s "$PWD/bundle/fledge" link
    succeeds ./link train a b
    same "$output" "$expected"
}

test_start_without_torch() {
    make_bundle
    FLEDGE_PYTHON=/nonexistent/python3 fails bundle/fledge
    says_only "no torch 2.11.0 on this machine: pip install torch==2.11.0"
    FLEDGE_TORCH=/nonexistent/torch fails bundle/fledge
    says_only "/nonexistent/torch"
}

test_start_with_another_version() {
    make_bundle
    make_torch other/torch 2.10.0
    FLEDGE_TORCH=other/torch fails bundle/fledge
    says_only "is torch 2.10.0, and 2.11.0 is needed"
}

make_built_repo() { # A checkout whose release binary is a copy of bash, which is a program that tells its version.
    mkdir -p repo/scripts repo/recipes repo/.build/release/fledge_Models.resources repo/.build/checkouts/Yams
    cp "$scripts/bundle" "$scripts/start" repo/scripts/
    cp "$(command -v bash)" repo/.build/release/fledge
    touch repo/recipes/quickstart.yaml repo/LICENSE repo/.build/release/fledge_Models.resources/data
    echo MIT >repo/.build/checkouts/Yams/LICENSE
    built=$(bash --version | sed -nE '1s/.*version ([^ ]+).*/\1/p')
}

test_bundle() {
    make_built_repo
    succeeds repo/scripts/bundle .build/release/fledge
    says "$built-linux-x86_64: "
    local folder=repo/dist/fledge-$built-linux-x86_64 part
    for part in fledge libexec/fledge libexec/fledge_Models.resources/data recipes/quickstart.yaml LICENSE \
        licenses/Yams.txt; do
        [[ -e $folder/$part ]] || fail "the bundle has no $part"
    done
    same "$(tar -tzf "$folder.tar.gz" | grep -c 'libexec/fledge$')" 1
    succeeds repo/scripts/bundle .build/release/fledge
    same "$(find repo/dist -mindepth 1 -maxdepth 1 | wc -l)" 2
}

test_bundle_that_is_too_large() {
    make_built_repo
    truncate -s 90000000 repo/.build/release/fledge_Models.resources/data
    fails repo/scripts/bundle .build/release/fledge
    says "are more than the limit of 90000000"
}
