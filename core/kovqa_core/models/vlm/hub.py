"""transformers and peft, quiet, and after torchvision, which both need.

Their types change with every release and say little: here they are taken as they come.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from kovqa_core.models.libraries import load_torchvision

load_torchvision()

transformers: Any = importlib.import_module("transformers")
peft: Any = importlib.import_module("peft")

transformers.utils.logging.set_verbosity_error()  # what matters is said by us
transformers.utils.logging.disable_progress_bar()
# peft asks transformers in a way that is to end with its next release: nothing a user can act on
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
