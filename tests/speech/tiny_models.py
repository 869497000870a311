"""Tiny speech models with random weights, made offline in a moment: a Whisper, a wav2vec 2.0, and two VITS voices."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from kovqa_core.speech.speech_folder import transformers as hf
from tokenizers import pre_tokenizers

WHISPER_TOKENS = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|ko|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
_LANGUAGE_TOKENS = ("<|en|>", "<|ko|>", "<|translate|>", "<|transcribe|>")
_SIZES = {
    "d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
}  # fmt: skip


def save_whisper(
    folder: Path, *, said: str = "무엇인가요?", settings: bool = True, languages: bool = True
) -> Path:
    """A Whisper that hears the same text in every sound: its weights are random, and its head follows the text.

    Args:
        folder: to be made.
        said: the text.
        settings: with generation settings of today, or with those of models tuned in 2023, which list no languages.
        languages: knows several, or English alone.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [
        token
        for token in WHISPER_TOKENS
        if languages or token not in ("<|en|>", "<|ko|>", "<|translate|>", "<|transcribe|>")
    ]
    tokenizer = hf.WhisperTokenizer(
        vocab={letter: number for number, letter in enumerate(letters)}, merges=[]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    of = tokenizer.convert_tokens_to_ids
    end, start = of("<|endoftext|>"), of("<|startoftranscript|>")
    torch.manual_seed(0)
    config = hf.WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=80, max_source_positions=1500, max_target_positions=64,
        pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start, begin_suppress_tokens=None,
        **_SIZES,
    )  # fmt: skip
    net = hf.WhisperForConditionalGeneration(config)
    net.generation_config = hf.GenerationConfig(
        max_length=64, bos_token_id=end, eos_token_id=end, pad_token_id=end, decoder_start_token_id=start
    )
    if settings and languages:
        net.generation_config.lang_to_id = {"<|en|>": of("<|en|>"), "<|ko|>": of("<|ko|>")}
        net.generation_config.task_to_id = {
            "transcribe": of("<|transcribe|>"),
            "translate": of("<|translate|>"),
        }
        net.generation_config.no_timestamps_token_id = of("<|notimestamps|>")
    if settings:
        net.generation_config.is_multilingual = languages
    _say_always(net, [*tokenizer.encode(said, add_special_tokens=False), end], 4 if languages else 1)
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    hf.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def _say_always(net: torch.nn.Module, text: list[int], prompt: int) -> None:
    """Let the place alone decide which token comes next: a decoder of nothing but places, and a head that knows them."""
    decoder = net.model.decoder
    with torch.no_grad():
        for parameter in decoder.layers.parameters():
            parameter.zero_()
        decoder.embed_tokens.weight.normal_(std=1e-3)
        decoder.embed_positions.weight.normal_(std=100)  # what was said before does not matter
        places = decoder.layer_norm(decoder.embed_positions.weight)
        for number, token in enumerate(text):
            decoder.embed_tokens.weight[token] += places[prompt - 1 + number]


def save_ctc(folder: Path) -> Path:
    """A wav2vec 2.0, which hears letter by letter."""
    folder.mkdir(parents=True)
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "|": 2, **{letter: 3 + n for n, letter in enumerate("무엇인가요")}}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    tokenizer = hf.Wav2Vec2CTCTokenizer(
        folder / "vocab.json", pad_token="[PAD]", unk_token="[UNK]", word_delimiter_token="|"
    )
    torch.manual_seed(0)
    config = hf.Wav2Vec2Config(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(20, 16), conv_kernel=(20, 16), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, pad_token_id=0,
    )  # fmt: skip
    hf.Wav2Vec2ForCTC(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def save_voice(folder: Path, letters: str = "무엇인가요 ", *, is_uroman: bool = False) -> Path:
    """A VITS: with an alphabet of its own, or one that reads what uroman writes, as MMS-TTS's Korean voice."""
    folder.mkdir(parents=True)
    vocabulary = {letter: number for number, letter in enumerate("_" + letters)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    tokenizer = hf.VitsTokenizer(
        folder / "vocab.json", pad_token="_", unk_token="_", phonemize=False, is_uroman=is_uroman
    )
    torch.manual_seed(0)
    config = hf.VitsConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16,
        flow_size=16, spectrogram_bins=9, prior_encoder_num_flows=1, prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1, upsample_initial_channel=16, upsample_rates=(4, 4),
        upsample_kernel_sizes=(8, 8), resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1,),),
        duration_predictor_num_flows=1, wavenet_kernel_size=3,
    )  # fmt: skip
    hf.VitsModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
