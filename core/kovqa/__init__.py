"""kovqa in a program or a notebook: a trained model, loaded once and asked about images.

    import kovqa

    model = kovqa.load("runs/dacon", top_k=3)
    answer = model.answer("사진.jpg", "무슨 색인가요?")
    answer.text, answer.score, answer.likeliest

    kovqa.load("runs/captions").caption("사진.jpg").text

Answers are those of `kovqa predict`. What goes wrong is a `KovqaError`: what, where, and in `hint` what to do. Importing
this loads no tensors' library; `load` does.
"""

from kovqa_core import __version__
from kovqa_core.data.example import Answer
from kovqa_core.errors import AssetError, DataError, KovqaError, MachineError, ModelError, SettingsError

from kovqa.image_input import ImageInput
from kovqa.loaded_model import Model, Question, load

__all__ = [
    "Answer",
    "AssetError",
    "DataError",
    "ImageInput",
    "KovqaError",
    "MachineError",
    "Model",
    "ModelError",
    "Question",
    "SettingsError",
    "__version__",
    "load",
]
