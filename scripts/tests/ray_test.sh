# Tests of scripts/setup --ray on a tiny wheel.

make_ray_wheel() {
    python3 - <<'PYTHON'
import zipfile
with zipfile.ZipFile("index/ray-2.60.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("ray/__init__.py", "tiny = True\n")
    wheel.writestr("ray-2.60.0.dist-info/METADATA",
                   "Metadata-Version: 2.1\nName: ray\nVersion: 2.60.0\nProvides-Extra: default\n")
    wheel.writestr("ray-2.60.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("ray-2.60.0.dist-info/RECORD", "")
PYTHON
}

test_ray_is_installed_when_asked_for() {
    make_repo
    make_ray_wheel
    succeeds "${setup[@]}"
    [[ ! -e repo/.deps/ray ]] || fail "Ray was installed without being asked for"
    succeeds "${setup[@]}" --ray
    is_set_up
    succeeds repo/.deps/ray/bin/python -c "import ray; assert ray.tiny"
    rm -rf index
    succeeds "${setup[@]}" --ray
    says_nothing
}

test_ray_that_is_not_whole_is_installed_anew() {
    make_repo
    fails "${setup[@]}" --ray
    says "pip cannot install ray[default]"
    [[ ! -e repo/.deps/ray/.installed ]] || fail "half an install counts as whole"
    make_ray_wheel
    succeeds "${setup[@]}" --ray
    succeeds repo/.deps/ray/bin/python -c "import ray"
}
