"""The original projects' index files: their names, rows and mistakes, for comparing with them.

A module per data set offers `write(root, images, folder, encode)`, which writes the files into a
folder that exists, and says by `NEEDS_TOKENIZER` whether they hold ids; `encode` gives the ids of a
text, without `<s>` and `</s>`.
"""

from collections.abc import Callable

UPSTREAM_MODULES = {
    name: f"kovqa_core.index.upstream.{name}" for name in ("aihub", "vqav2", "coco", "nia", "dacon")
}
EncodeText = Callable[[str], list[int]]
