"""Every image-text-to-text class of transformers, as a tiny random model, through kovqa: `python -m bench.vlm_classes`."""
