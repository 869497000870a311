"""What is particular to a class of transformers, for a tiny model of it: sizes that fit together, its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ClassFacts:
    """Changes to the generic way of `tiny_model.py`.

    Attributes:
        config: dotted name of a configuration's field -> value; None takes the field out.
        image: arguments of the image processor.
        video: arguments of the video processor.
        processor: arguments of the processor.
        parts: further parts of the processor -> their class.
        image_text: what the chat template writes for an image; empty: the processor's own placeholder.
        template: another chat template than ChatML; IMAGE stands for `image_text`; empty: none.
        tokens: further special tokens.
        named_tokens: attribute of the tokenizer -> its token.
        processor_class: where transformers' table names none.
        image_class: likewise, of images.
        video_class: likewise, of videos.
    """

    config: Mapping[str, object] = field(default_factory=dict)
    image: Mapping[str, object] = field(default_factory=dict)
    video: Mapping[str, object] = field(default_factory=dict)
    processor: Mapping[str, object] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    image_text: str = ""
    template: str | None = None
    tokens: tuple[str, ...] = ()
    named_tokens: Mapping[str, str] = field(default_factory=dict)
    processor_class: str = ""
    image_class: str = ""
    video_class: str = ""


_QWEN_IMAGE = "<vision_start><image><vision_end>"
_MROPE = {"text_config.rope_parameters.mrope_section": [2, 3, 3]}
_LLAVA = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
_LLAVA_CONFIG = {"image_seq_length": 16}

CLASS_FACTS: dict[str, ClassFacts] = {
    "aya_vision": ClassFacts(image={"max_patches": 2}, processor={"patch_size": 8, "img_size": 32, "downsample_factor": 2}),
    "cohere2_vision": ClassFacts(image={"patch_size": 2, "max_patches": 2}),
    "cosmos3_omni": ClassFacts(processor_class="Qwen3VLProcessor"),
    "deepseek_vl": ClassFacts(image={"min_size": 8}, processor={"num_image_tokens": 16}),
    "deepseek_vl_hybrid": ClassFacts(image={"min_size": 8, "high_res_size": {"height": 32, "width": 32}}, processor={"num_image_tokens": 16}),
    "diffusion_gemma": ClassFacts(image_class="Gemma4ImageProcessorPil", video_class="Gemma4VideoProcessor", parts={"feature_extractor": "Gemma4AudioFeatureExtractor"}),
    "dots3_note": ClassFacts(parts={"feature_extractor": "WhisperFeatureExtractor"}),
    "evolla": ClassFacts(parts={"protein_tokenizer": "tokenizer"}),
    "fast_vlm": ClassFacts(processor=_LLAVA | {"num_additional_image_tokens": 0}, processor_class="LlavaProcessor", image_class="CLIPImageProcessorPil"),
    "fuyu": ClassFacts(tokens=("|SPEAKER|", "|NEWLINE|", "<0x04>")),
    "gemma3": ClassFacts(processor={"image_seq_length": 4}, image_text="<boi>"),
    "glm46v": ClassFacts(config=_MROPE),
    "glm4v": ClassFacts(config=_MROPE),
    "glm4v_moe": ClassFacts(config={"text_config.rope_parameters.mrope_section": [2, 1, 1]}, image_class="Glm4vImageProcessorPil", video_class="Glm4vVideoProcessor"),
    "glm_ocr": ClassFacts(config=_MROPE, processor_class="Glm46VProcessor", image_class="Glm46VImageProcessorPil", video_class="Glm46VVideoProcessor"),
    "glmga": ClassFacts(config=_MROPE, processor_class="Glm46VProcessor"),
    "granite_docling": ClassFacts(processor={"image_seq_len": 1}),
    "instructblip": ClassFacts(parts={"qformer_tokenizer": "tokenizer"}),
    "instructblipvideo": ClassFacts(parts={"qformer_tokenizer": "tokenizer"}),
    "internvl": ClassFacts(image={"max_patches": 2}, processor={"image_seq_length": 4}, image_text="<context_image>"),
    "janus": ClassFacts(image={"min_size": 8}, processor={"num_image_tokens": 16}),
    "kosmos-2": ClassFacts(processor_class="Kosmos2Processor"),
    "kosmos-2.5": ClassFacts(processor_class="Kosmos2_5Processor"),
    "lfm2_vl": ClassFacts(image={"encoder_patch_size": 8, "tile_size": 32, "max_tiles": 2, "min_image_tokens": 1, "max_image_tokens": 4, "max_num_patches": 16}),
    "lighton_ocr": ClassFacts(processor={"patch_size": 8, "spatial_merge_size": 2}),
    "llama4": ClassFacts(config={"vision_config.intermediate_size": 128, "vision_config.vision_output_dim": 32, "vision_config.projector_input_dim": 32}, image={"max_patches": 2}, processor={"patch_size": 8}),
    "llava": ClassFacts(_LLAVA_CONFIG, processor=_LLAVA),
    "llava_next": ClassFacts(_LLAVA_CONFIG, processor=_LLAVA),
    "llava_next_video": ClassFacts(_LLAVA_CONFIG, processor=_LLAVA),
    "llava_onevision": ClassFacts(processor={"num_image_tokens": 16, "vision_feature_select_strategy": "full"}),
    "mistral3": ClassFacts(processor={"patch_size": 8, "spatial_merge_size": 2}),
    "mistral4": ClassFacts(processor_class="PixtralProcessor", image_class="PixtralImageProcessorPil"),
    "mistral_large4": ClassFacts({"text_config.kv_source_layers": [0, 1]}, processor={"patch_size": 8, "spatial_merge_size": 2}),
    "ovis2": ClassFacts(image={"max_patches": 2}, processor={"image_seq_length": 4}),
    "paddleocr_vl": ClassFacts(_MROPE),
    "paligemma": ClassFacts(image={"image_seq_length": 16}),
    "perception_lm": ClassFacts(image={"tile_size": 32, "max_num_tiles": 2}, processor={"patch_size": 8}),
    "pi0": ClassFacts(image={"image_seq_length": 16}),
    "qianfan_ocr": ClassFacts(image={"max_patches": 2}, processor={"image_seq_length": 4}, image_text="<image>"),
    "qwen2_5_omni_thinker": ClassFacts(_MROPE, processor_class="Qwen2_5OmniProcessor", image_class="Qwen2VLImageProcessorPil", video_class="Qwen2VLVideoProcessor", parts={"feature_extractor": "WhisperFeatureExtractor"}),
    "qwen2_5_vl": ClassFacts(_MROPE),
    "qwen2_vl": ClassFacts(_MROPE),
    "qwen3_omni_moe_thinker": ClassFacts(processor_class="Qwen3OmniMoeProcessor", image_class="Qwen2VLImageProcessorPil", video_class="Qwen2VLVideoProcessor", parts={"feature_extractor": "WhisperFeatureExtractor"}),
    "qwen3_vl_moe": ClassFacts(image_class="Qwen2VLImageProcessorPil"),
    "vipllava": ClassFacts(_LLAVA_CONFIG, processor=_LLAVA),
}
