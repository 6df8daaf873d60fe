# Tests of scripts/setup --parquet on tiny wheels, with a compiler that writes down what it was asked for.

make_parquet_repo() {
    make_repo
    mkdir -p repo/Sources/CArrow/include repo/Sources/CArrow/shim compiler
    touch repo/Sources/CArrow/include/carrow.h repo/Sources/CArrow/shim/parquet.cpp
    real=$(command -v clang++ || command -v c++)
    cat >compiler/clang++ <<COMPILER
#!/usr/bin/env bash
for argument in "\$@"; do
    if [[ \$argument == */parquet.cpp ]]; then
        while [[ \$1 != -o ]]; do shift; done
        echo bridge >"\$2"
        exit \${FAIL_BRIDGE:-0}
    fi
done
exec "$real" "\$@"
COMPILER
    chmod +x compiler/clang++
    PATH=$PWD/compiler:$PATH
}

bridge=repo/.deps/parquet/libfledge-parquet.so

test_parquet_is_fetched_when_asked_for() {
    make_parquet_repo
    succeeds "${setup[@]}"
    [[ ! -e repo/.deps/parquet && ! -e repo/.cache/wheels/pyarrow-26.0.1-cp311-cp311-manylinux_2_28_x86_64.whl ]] ||
        fail "Arrow was fetched without being asked for"
    succeeds "${setup[@]}" --parquet
    is_set_up
    same "$(cat repo/.deps/parquet/pyarrow/libparquet.so.2600)" "parquet library"
    same "$(cat $bridge.2600)" bridge
    [[ ! -e repo/.deps/parquet/pyarrow/libarrow_flight.so.2600 ]] || fail "more was unpacked than is needed"
    rm -rf repo/.cache index
    succeeds "${setup[@]}" --parquet
    says_nothing
    succeeds "${setup[@]}"
    [[ -e $bridge.2600 ]] || fail "it was thrown away"
}

test_parquet_changed_bridge_is_built_anew() {
    make_parquet_repo
    succeeds "${setup[@]}" --parquet
    echo "// changed" >>repo/Sources/CArrow/shim/parquet.cpp
    succeeds "${setup[@]}" --parquet
    says "building the reader of Parquet files"
    same "$(find repo/.deps -maxdepth 1 -name 'parquet-*' | wc -l)" 1
}

test_parquet_with_an_install() {
    make_parquet_repo
    mkdir -p site/pyarrow/include/parquet/arrow
    touch site/pyarrow/libparquet.so.1900 site/pyarrow/include/parquet/arrow/reader.h
    FLEDGE_ARROW=site/pyarrow succeeds "${setup[@]}" --parquet
    same "$(cat $bridge.1900)" bridge
    same "$(readlink repo/.deps/parquet/pyarrow)" "$PWD/site/pyarrow"
    succeeds "${setup[@]}" --parquet
    says_only "as FLEDGE_ARROW said before"
    rm site/pyarrow/include/parquet/arrow/reader.h
    FLEDGE_ARROW=$PWD/site/pyarrow fails "${setup[@]}" --parquet
    says "no headers"
}

test_parquet_that_does_not_compile() {
    make_parquet_repo
    FAIL_BRIDGE=1 fails "${setup[@]}" --parquet
    says "does not compile"
    [[ ! -e repo/.deps/parquet ]] || fail "half of it is in use"
    succeeds "${setup[@]}" --parquet
    is_set_up
}
