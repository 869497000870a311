"""The table of model families: name -> package. Imported only when one is chosen."""

FAMILIES = {
    "beit3": "kovqa_core.models.beit3",
    "fusion": "kovqa_core.models.fusion",
    "vlm": "kovqa_core.models.vlm",
}
HF_FOLDER_FAMILY = "vlm"  # takes a Hugging Face folder as it is
