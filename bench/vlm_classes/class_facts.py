"""What is particular to a class of transformers, for a tiny model of it: sizes that fit together, its tokens."""

from __future__ import annotations

from bench.vlm_classes.facts_form import ClassFacts

_MROPE = {"text_config.rope_parameters.mrope_section": [2, 3, 3]}
_LLAVA = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
_LLAVA_CONFIG = {"image_seq_length": 16}

CLASS_FACTS: dict[str, ClassFacts] = {
    "chameleon": ClassFacts(
        {
            "vocabulary_map": {
                "<image>": "id:<image>",
                **{f"IMGIMGA{letter}A": 300 + number for number, letter in enumerate("ABCDEFGH")},
            },
            "vq_config.num_embeddings": 8,
            "vq_config.base_channels": 32,
            "vq_config.latent_channels": 8,
            "vq_config.channel_multiplier": [1, 1],
            "vq_config.num_res_blocks": 1,
            "vq_config.resolution": 32,
            "image_token_id": "id:<image>",
        },
        processor={"image_seq_length": 256},
    ),
    "deepseek_ocr2": ClassFacts({"text_config.mlp_layer_types": ["dense", "sparse"]}),
    "ernie4_5_vl_moe": ClassFacts(
        {
            "text_config.rope_parameters.mrope_section": [3, 3, 2],
            "text_config.moe_intermediate_size": [32, 32],
        },
        video={"draw_on_frames": False},
        image_text="<image_start><image><image_end>",
    ),
    "gemma3n": ClassFacts({"text_config.intermediate_size": 64}),
    "gemma4": ClassFacts(
        {
            "vision_config": {
                "model_type": "gemma4_vision",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "patch_size": 8,
                "pooling_kernel_size": 2,
                "position_embedding_size": 64,
            },
            "text_config.vocab_size_per_layer_input": 512,
            "text_config.hidden_size_per_layer_input": 16,
        },
        image={"max_soft_tokens": 70, "pooling_kernel_size": 2},
        parts={"feature_extractor": "Gemma4AudioFeatureExtractor"},
    ),
    "glm5_next": ClassFacts(
        {
            "text_config.qk_rope_head_dim": 0,
            "text_config.qk_head_dim": 16,
            "text_config.index_topk": 64,
            "text_config.index_head_dim": 16,
            "text_config.index_n_heads": 2,
        }
    ),
    "idefics": ClassFacts({"alpha_initializer": "ones"}),
    "mllama": ClassFacts(
        {
            "vision_config.max_num_tiles": 2,
            "vision_config.supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
            "vision_config.intermediate_layers_indices": [0],
            "vision_config.num_global_layers": 1,
            "vision_config.vision_output_dim": 64,
            "text_config.cross_attention_layers": [1],
        },
        image={"max_image_tiles": 2},
    ),
    "muse_glimmer": ClassFacts(
        {
            "vision_config.out_hidden_size": 128,
            "vision_config.projector_hidden_size": 32,
            "out_hidden_size": 128,
        }
    ),
    "muse_spark": ClassFacts(
        {
            "audio_config.num_hidden_layers": 4,
            "audio_config.hidden_sizes": [8, 8, 16, 32],
            "vision_config.out_hidden_size": 128,
            "vision_config.projector_hidden_size": 32,
            "out_hidden_size": 128,
        },
        parts={"feature_extractor": "MuseSparkFeatureExtractor"},
    ),
    "qwen4_exp": ClassFacts(
        {
            "text_config.indexer_n_heads": 2,
            "text_config.indexer_kv_heads": 1,
            "text_config.indexer_head_dim": 16,
            "text_config.indexer_budget": 64,
            "text_config.indexer_compress_ratio": 4,
            "text_config.ngram_vocab_size_base": 200,
            "text_config.ple_embed_dim": 32,
        }
    ),
    "video_llava": ClassFacts(
        {"image_seq_length": 16},
        processor={"patch_size": 8},
        image={"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    ),
    "hunyuan_vl": ClassFacts(
        {
            "text_config.head_dim": 16,
            "text_config.rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 2, 2, 2],
            },
        },
        image_text="<image_start><image><image_end>",
    ),
    "idefics3": ClassFacts(
        image={"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}},
        processor={"image_seq_len": 4},
    ),
    "smolvlm": ClassFacts(
        {"scale_factor": 2},
        image={"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}},
        video={"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}},
        processor={"image_seq_len": 4},
    ),
    "cohere_compass": ClassFacts(
        {
            "text_config.rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
                "sliding_attention": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [2, 3, 3],
                },
            }
        },
        named_tokens={"image_token": "<|IMAGE_PAD|>", "video_token": "<|VIDEO_PAD|>"},
        image_text="<|VISION_START|><|IMAGE_PAD|><|VISION_END|>",
    ),
    "minimax_m3_vl": ClassFacts(
        tokens=("]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>[")
    ),
    "step3p7": ClassFacts(
        image={
            "patch_size": 16,
            "vision_patch_size": 8,
            "max_image_size": 64,
            "size": {"height": 32, "width": 32},
        },
        tokens=("<im_start>", "<im_end>", "<patch_start>", "<patch_end>"),
    ),
    "granite4_vision": ClassFacts(
        {
            "vision_config.hidden_size": 64,
            "deepstack_layer_map": [[-1, 0]],
            "image_seq_length": 16,
            "spatial_target_layers": [1],
            "downsample_rate": "1/2",
        },
        processor={"patch_size": 8, "vision_feature_select_strategy": "full", "downsample_rate": "1/2"},
    ),
    "aria": ClassFacts(
        {
            "vision_config.image_size": 980,
            "vision_config.patch_size": 140,
            "projector_patch_to_query_dict": {49: 4},
            "max_value_projector_patch_to_query_dict": 4,
        },
        processor={"size_conversion": {980: 4, 490: 4}},
    ),
    "minicpmv4_7": ClassFacts(
        {"vision_config.insert_layer_id": 0, "insert_layer_id": 0},
        image={"scale_resolution": 32, "max_slice_nums": 2},
    ),
    "minicpmv4_6": ClassFacts(
        {"vision_config.insert_layer_id": 0, "insert_layer_id": 0},
        image={"scale_resolution": 32, "max_slice_nums": 2},
    ),
    "minicpm_ocr": ClassFacts(
        {"vision_config.insert_layer_id": 0, "insert_layer_id": 0},
        image={"scale_resolution": 32, "max_slice_nums": 2},
    ),
    "gemma4_unified": ClassFacts(
        {
            "vision_config": {
                "model_type": "gemma4_unified_vision",
                "mm_embed_dim": 32,
                "mm_posemb_size": 64,
                "output_proj_dims": 32,
                "patch_size": 8,
                "pooling_kernel_size": 2,
            }
        },
        image={"max_soft_tokens": 70, "pooling_kernel_size": 2},
        image_class="Gemma4UnifiedImageProcessor",
        parts={"feature_extractor": "Gemma4UnifiedAudioFeatureExtractor"},
    ),
    "t5gemma2": ClassFacts(
        {"image_token_index": "id:<image>", "encoder.image_token_index": "id:<image>"},
        processor={"image_seq_length": 4},
    ),
    "aya_vision": ClassFacts(
        image={"max_patches": 2}, processor={"patch_size": 8, "img_size": 32, "downsample_factor": 2}
    ),
    "cohere2_vision": ClassFacts(image={"patch_size": 2, "max_patches": 2}),
    "cosmos3_omni": ClassFacts(processor_class="Qwen3VLProcessor"),
    "deepseek_vl": ClassFacts(image={"min_size": 8}, processor={"num_image_tokens": 16}),
    "deepseek_vl_hybrid": ClassFacts(
        image={"min_size": 8, "high_res_size": {"height": 32, "width": 32}},
        processor={"num_image_tokens": 16},
    ),
    "diffusion_gemma": ClassFacts(
        {
            "vision_config": {
                "model_type": "gemma4_vision",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "patch_size": 8,
                "pooling_kernel_size": 2,
                "position_embedding_size": 64,
            }
        },
        image={"max_soft_tokens": 70, "pooling_kernel_size": 2},
        image_class="Gemma4ImageProcessorPil",
        video_class="Gemma4VideoProcessor",
        parts={"feature_extractor": "Gemma4AudioFeatureExtractor"},
    ),
    "dots3_note": ClassFacts(
        {
            "vision_config.adapter_in_dim": 32,
            "vision_config.adapter_out_dim": 32,
            "audio_config.adapter_input_size": 32,
            "audio_config.adapter_out_dim": 32,
        },
        parts={"feature_extractor": "WhisperFeatureExtractor"},
    ),
    "evolla": ClassFacts(parts={"protein_tokenizer": "tokenizer"}),
    "fast_vlm": ClassFacts(
        processor=_LLAVA | {"num_additional_image_tokens": 0},
        processor_class="LlavaProcessor",
        image_class="CLIPImageProcessorPil",
    ),
    "fuyu": ClassFacts(tokens=("|SPEAKER|", "|NEWLINE|", "<0x04>")),
    "gemma3": ClassFacts({"image_token_index": "id:<image>"}, processor={"image_seq_length": 4}),
    "glm46v": ClassFacts(config=_MROPE),
    "glm4v": ClassFacts(config=_MROPE),
    "glm4v_moe": ClassFacts(
        config={"text_config.rope_parameters.mrope_section": [2, 1, 1]},
        image_class="Glm4vImageProcessorPil",
        video_class="Glm4vVideoProcessor",
    ),
    "glm_ocr": ClassFacts(
        config=_MROPE,
        processor_class="Glm46VProcessor",
        image_class="Glm46VImageProcessorPil",
        video_class="Glm46VVideoProcessor",
    ),
    "glmga": ClassFacts(config=_MROPE, processor_class="Glm46VProcessor"),
    "granite_docling": ClassFacts(processor={"image_seq_len": 1}),
    "instructblip": ClassFacts(parts={"qformer_tokenizer": "tokenizer"}),
    "instructblipvideo": ClassFacts(parts={"qformer_tokenizer": "tokenizer"}),
    "internvl": ClassFacts(
        image={"max_patches": 2}, processor={"image_seq_length": 4}, image_text="<context_image>"
    ),
    "janus": ClassFacts(image={"min_size": 8}, processor={"num_image_tokens": 16}),
    "kosmos-2": ClassFacts(processor_class="Kosmos2Processor"),
    "kosmos-2.5": ClassFacts(processor_class="Kosmos2_5Processor"),
    "lfm2_vl": ClassFacts(
        image={
            "encoder_patch_size": 8,
            "tile_size": 32,
            "max_tiles": 2,
            "min_image_tokens": 1,
            "max_image_tokens": 4,
            "max_num_patches": 16,
        }
    ),
    "lighton_ocr": ClassFacts(
        image={"size": {"longest_edge": 64}}, processor={"patch_size": 8, "spatial_merge_size": 2}
    ),
    "llama4": ClassFacts(
        {
            "vision_config.intermediate_size": 128,
            "vision_config.vision_output_dim": 32,
            "vision_config.projector_input_dim": 32,
            "image_token_index": "id:<|patch|>",
        },
        image={"max_patches": 2},
        processor={"patch_size": 8},
    ),
    "llava": ClassFacts(_LLAVA_CONFIG, processor=_LLAVA),
    "llava_next": ClassFacts(_LLAVA_CONFIG, processor=_LLAVA),
    "llava_next_video": ClassFacts(_LLAVA_CONFIG, processor=_LLAVA),
    "llava_onevision": ClassFacts(
        processor={"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    ),
    "mistral3": ClassFacts(
        image={"size": {"longest_edge": 64}}, processor={"patch_size": 8, "spatial_merge_size": 2}
    ),
    "mistral4": ClassFacts(processor_class="PixtralProcessor", image_class="PixtralImageProcessorPil"),
    "mistral_large4": ClassFacts(
        {"text_config.kv_source_layers": [0, 1]},
        image={"size": {"longest_edge": 64}},
        processor={"patch_size": 8, "spatial_merge_size": 2},
    ),
    "ovis2": ClassFacts(
        {
            "image_token_id": "id:<IMG_ATOM>",
            "visual_indicator_token_ids": [
                "id:<IMG_START>",
                "id:<IMG_GRID>",
                "id:<IMG_COL>",
                "id:<IMG_ROW>",
                "id:<IMG_END>",
            ],
        },
        image={"max_patches": 2},
        processor={"image_seq_length": 16},
        tokens=("<IMG_START>", "<IMG_GRID>"),
    ),
    "paddleocr_vl": ClassFacts(_MROPE),
    "paligemma": ClassFacts(image={"image_seq_length": 16}),
    "perception_lm": ClassFacts(
        {
            "vision_config.model_args": {
                "embed_dim": 32,
                "depth": 2,
                "num_heads": 2,
                "img_size": [32, 32],
                "patch_size": 8,
                "global_pool": "",
                "use_post_transformer_norm": False,
                "init_values": 0.1,
                "ref_feat_shape": [4, 4],
            },
            "vision_config.architecture": "vit_pe_core_large_patch14_336",
            "projector_pooling_ratio": 2,
        },
        image={"tile_size": 32, "max_num_tiles": 2},
        processor={"patch_size": 8},
    ),
    "pi0": ClassFacts(image={"image_seq_length": 16}),
    "qianfan_ocr": ClassFacts(
        image={"max_patches": 2}, processor={"image_seq_length": 4}, image_text="<image>"
    ),
    "qwen2_5_omni_thinker": ClassFacts(
        _MROPE | {"vision_start_token_id": "id:<vision_bos>", "audio_start_token_id": "id:<audio_bos>"},
        processor_class="Qwen2_5OmniProcessor",
        image_class="Qwen2VLImageProcessorPil",
        video_class="Qwen2VLVideoProcessor",
        parts={"feature_extractor": "WhisperFeatureExtractor"},
    ),
    "qwen2_5_vl": ClassFacts(_MROPE),
    "qwen2_vl": ClassFacts(_MROPE),
    "qwen3_omni_moe_thinker": ClassFacts(
        {"vision_start_token_id": "id:<vision_bos>", "audio_start_token_id": "id:<audio_bos>"},
        processor_class="Qwen3OmniMoeProcessor",
        image_class="Qwen2VLImageProcessorPil",
        video_class="Qwen2VLVideoProcessor",
        parts={"feature_extractor": "WhisperFeatureExtractor"},
    ),
    "qwen3_vl_moe": ClassFacts(image_class="Qwen2VLImageProcessorPil"),
    "vipllava": ClassFacts(_LLAVA_CONFIG, processor=_LLAVA),
}
