"""A process in which another library reads an exported folder, and kovqa cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from kovqa_core.models import torchvision_compat

# Arguments: folder of rows.json and logits.py, a file that makes torchvision importable, device, is foreign code allowed.
_RUN_CODE = """\
import importlib.abc, importlib.util, json, runpy, sys
from pathlib import Path

class NoKovqa(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("kovqa", "kovqa_core", "kovqa_cli"):
            raise ImportError(f"{name} is not to be needed here")

sys.meta_path.insert(0, NoKovqa())
folder, torchvision_compat, device, trust_remote_code = sys.argv[1:]
sys.path.append(".")

import torch
from PIL import Image
from safetensors.torch import save_file

if importlib.util.find_spec("torchvision") is not None:  # else nothing here needs it
    runpy.run_path(torchvision_compat)["load_torchvision"]()
torch.backends.cudnn.allow_tf32 = False
names = {"torch": torch, "Image": Image, "trust_remote_code": trust_remote_code == "True"}
exec(Path(folder, "logits.py").read_text("utf-8"), names)
rows = json.loads(Path(folder, "rows.json").read_text("utf-8"))
logits = {
    str(number): names["logits"](row, Image.open(row["image"]), device).float().cpu().contiguous()
    for number, row in enumerate(rows)
}
save_file(logits, Path(folder, "logits.safetensors"))
"""


def device() -> str:
    """Where both sides compute."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def run_logits_code(exported: Path, folder: Path, *, trust_remote_code: bool) -> str:
    """Run `logits.py` on the rows of `rows.json`; writes `logits.safetensors` beside them.

    Args:
        exported: the folder that is read; the code runs in it.
        folder: of the three files.
        trust_remote_code: may the library run code of the exported folder?

    Returns:
        What went wrong, in one line; "" if nothing did.
    """
    done = subprocess.run(
        [
            sys.executable, "-P", "-c", _RUN_CODE, str(folder), torchvision_compat.__file__, device(),
            str(trust_remote_code),
        ],
        cwd=exported,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"
