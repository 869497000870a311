"""A driver without a GPU: built of `fake_driver.c` where there is none, and preloaded into this program's process."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_SET = "GPU_SIMULATION_DRIVER"


def torch_has_cuda() -> bool:
    """Is this torch built with CUDA? Asked without loading it: the driver must be there first."""
    spec = importlib.util.find_spec("torch")
    folder = Path(str(spec.origin)).parent if spec else Path()
    return (folder / "lib" / "libtorch_cuda.so").is_file()


def build_driver() -> Path:
    """The library, compiled into a folder of temporary files.

    Raises:
        SystemExit: there is no C compiler, or no header of CUDA beside torch.
    """
    source = Path(__file__).with_name("fake_driver.c")
    packages = Path(str(importlib.util.find_spec("torch").origin)).parents[1]  # type: ignore[union-attr]
    headers = [
        path.parent for path in packages.glob("*/**/cuda_runtime_api.h") if (path.parent / "crt").is_dir()
    ]
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not headers:
        raise SystemExit("the simulation needs a C compiler, and CUDA's headers (they come with triton)")
    library = Path(tempfile.mkdtemp(prefix="gpu-simulation-")) / "libcuda.so.1"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-Wl,-soname,libcuda.so.1",
        "-I",
        str(headers[0]),
        str(source),
    ]
    subprocess.run([*command, "-o", str(library), "-ldl"], check=True)
    return library


def use_fake_gpu(arguments: list[str]) -> None:
    """Start this program again with the driver preloaded; returns in the process that has it."""
    if os.environ.get(_SET):
        return
    library = build_driver()
    preload = " ".join(filter(None, [str(library), os.environ.get("LD_PRELOAD", "")]))
    os.environ |= {_SET: str(library), "LD_PRELOAD": preload, "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    os.execv(sys.executable, [sys.executable, *arguments])
