"""transformers and peft, quiet, and after torchvision, which both need.

Their types change with every release and say little: here they are taken as they come.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

from kovqa_core.models.torchvision_compat import load_torchvision

load_torchvision()

transformers: Any = importlib.import_module("transformers")
peft: Any = importlib.import_module("peft")

transformers.utils.logging.set_verbosity_error()  # what matters is said by us
transformers.utils.logging.disable_progress_bar()
# peft asks transformers in a way that is to end with its next release: nothing a user can act on
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")


def save_hf_network(net: Any, folder: Path) -> None:
    """Write a network; DeepSpeed, which this imports where it is installed, would speak on stdout."""
    with contextlib.redirect_stdout(sys.stderr):
        net.save_pretrained(folder)
