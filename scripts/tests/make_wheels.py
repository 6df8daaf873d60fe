"""make_wheels.py INDEX LOCK: writes tiny stand-ins for the real wheels into INDEX, and the lock file that names them."""

import hashlib
import os
import sys
import zipfile

WHEELS = [
    ("cpu", "torch", "2.11.0", "cp311-cp311-manylinux_2_28_x86_64", {
        "torch/version.py": "__version__ = '2.11.0+cu130'\n",
        "torch/lib/libtorch_cpu.so": "cpu library",
        "torch/lib/libtorch_cuda.so": "cuda library",
        "torch/lib/libtorch_python.so": "python library",
        "torch/include/ATen/ATen.h": "// header\n",
    }),
    ("cpu", "nvidia-cuda-runtime", "13.0.96", "py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64", {
        "nvidia/cu13/lib/libcudart.so.13": "cuda runtime",
        "nvidia/cu13/lib/libcudart_static.a": "archive",
    }),
    ("cpu", "nvidia-cuda-nvrtc", "13.0.88", "py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64", {
        "nvidia/cu13/lib/libnvrtc.so.13": "kernel compiler",
        "nvidia/cu13/lib/libnvrtc-builtins.so.13.0": "its builtins",
        "nvidia/cu13/lib/libnvrtc.alt.so.13": "another",
    }),
    ("cuda", "nvidia-cublas", "13.1.0.3", "py3-none-manylinux_2_27_x86_64", {
        "nvidia/cu13/lib/libcublas.so.13": "cublas",
    }),
    ("parquet", "pyarrow", "26.0.1", "cp311-cp311-manylinux_2_28_x86_64", {
        "pyarrow/libarrow.so.2600": "arrow library",
        "pyarrow/libparquet.so.2600": "parquet library",
        "pyarrow/libarrow_flight.so.2600": "flight library",
        "pyarrow/include/parquet/arrow/reader.h": "// header\n",
    }),
    ("model", "tiny-model", "0.1.2", "py3-none-any", {"tiny_model/tiny.gguf": "model"}),
]


def main(index, lock):
    lines = []
    for group, name, version, tags, members in WHEELS:
        stem = f"{name.replace('-', '_')}-{version}"
        path = os.path.join(index, f"{stem}-{tags}.whl")
        info = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: not-to-be-fetched\n",
            "WHEEL": "Wheel-Version: 1.0\n" + "".join(f"Tag: {tag}\n" for tag in tags.split(".")),
            "RECORD": "",
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
            for member, text in members.items():
                wheel.writestr(member, text)
            for member, text in info.items():
                wheel.writestr(f"{stem}.dist-info/{member}", text)
        with open(path, "rb") as file:
            lines.append(f"{group} {name} {version} {hashlib.sha256(file.read()).hexdigest()} {os.path.basename(path)}")
    digest = hashlib.sha256(b"model").hexdigest()
    lines.append(f"file tiny-model {digest} tiny_model/tiny.gguf models/tiny/tiny.gguf")
    with open(lock, "w") as file:
        file.write("# tiny wheels\n" + "\n".join(lines) + "\n")


main(*sys.argv[1:])
