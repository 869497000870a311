"""A vision language model as a plain Hugging Face folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kovqa_core.messages import message
from kovqa_core.models.checkpoint_info import read_checkpoint_info, write_checkpoint_info
from kovqa_core.models.export_check import ExportedModel
from kovqa_core.models.vlm.config import PROMPT_SETTINGS
from kovqa_core.models.vlm.hf_libraries import save_hf_network, save_hf_processor
from kovqa_core.models.vlm.lora_updates import merge_updates
from kovqa_core.models.vlm.model import VlmModel
from kovqa_core.models.vlm.processor import VlmProcessor

_HF_LOADING_CODE = """\
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(".", local_files_only=True)
processor = AutoProcessor.from_pretrained(".", local_files_only=True)
image = Image.open("image.jpg").convert("RGB")
content = [{"type": "image", "image": image}, {"type": "text", "text": "무슨 색인가요?"}]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
output = model.generate(**inputs, max_new_tokens=16, do_sample=False)
print(processor.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""


def write_hf_export(
    model: VlmModel, processor: VlmProcessor, step: Path, folder: Path, *, was_quantised: bool = False
) -> ExportedModel:
    """Write network and processor, and for kovqa how questions are put to it.

    Args:
        model: its updates are merged.
        processor: its processor.
        step: the checkpoint folder.
        folder: where to write; must exist.
        was_quantised: did it learn on a base in 4 bits?
    """
    net, rounding = merge_updates(model.net)
    save_hf_network(net, folder)
    save_hf_processor(processor.hf, folder)
    prompt_settings = model.config.model_dump(include=set(PROMPT_SETTINGS))
    write_checkpoint_info(folder, replace(read_checkpoint_info(step), model=prompt_settings))
    notes = []
    if rounding:
        notes.append(
            message(
                "vlm.merged-in-fp32",
                "updates were merged in fp32 and rounded to {dtype} once, which moved no weight by more than {rounding:.2g}",
                dtype=model.config.dtype,
                rounding=rounding,
            )
        )
    if was_quantised:
        notes.append(
            message(
                "vlm.four-bit-base-written",
                "its base was in 4 bits: weights are written as the model computed with them, not as the base has them",
            )
        )
    return ExportedModel(_HF_LOADING_CODE, tuple(notes), is_rounded=bool(notes))
