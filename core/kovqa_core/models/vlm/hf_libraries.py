"""transformers and peft, silenced, and imported after torchvision, which both need.

Their types change with every release and say little: `hf_types` lists what we use of them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

from kovqa_core.models.torchvision_compat import load_torchvision
from kovqa_core.models.vlm.hf_types import HfNetwork

load_torchvision()

transformers: Any = importlib.import_module("transformers")
peft: Any = importlib.import_module("peft")

transformers.utils.logging.set_verbosity_error()  # what matters is said by our own messages
transformers.utils.logging.disable_progress_bar()
# peft uses what transformers is about to remove: nothing that a user can act on
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")


def save_hf_network(net: HfNetwork, folder: Path) -> None:
    """Write a network; DeepSpeed, which this imports where it is installed, would print on stdout."""
    with contextlib.redirect_stdout(sys.stderr):
        net.save_pretrained(folder)
