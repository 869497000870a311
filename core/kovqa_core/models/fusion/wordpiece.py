"""The `vocab.txt` of a BERT -> a `tokenizer.json`: older folders have nothing else.

The list of tokens does not say how text is prepared. `tokenizer_config.json` does, if it is there; else the list itself
tells: tokens in capitals exist only where text keeps them, whole Hangul syllables only where text is not taken apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kovqa_core.errors import ModelError
from kovqa_core.files import read_json, read_text
from kovqa_core.messages import message

_CLS, _SEP, _PAD, _UNK, _MASK = "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"
_SYLLABLES = ("가", "힣")  # the first and the last whole syllable of Unicode


class _TextRules(NamedTuple):
    """How a BERT prepares text: arguments of `tokenizers.normalizers.BertNormalizer`."""

    lowercase: bool
    strip_accents: bool | None  # None: as `lowercase`
    handle_chinese_chars: bool


def build_wordpiece_json(path: Path) -> str:
    """A `tokenizer.json` that splits text into the tokens of a list, as BERT does.

    Args:
        path: one token a line; the line's number is the id.

    Raises:
        ModelError: a special token is missing, or a token is listed twice.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokens = read_text(path).rstrip("\n").split("\n")
    ids = {token.rstrip("\r"): i for i, token in enumerate(tokens)}
    if missing := [token for token in (_CLS, _SEP, _PAD, _UNK) if token not in ids]:
        raise ModelError(
            message(
                "fusion.not-a-wordpiece-list", "{path} has no token {token}", path=path, token=missing[0]
            ),
            message("fusion.not-a-wordpiece-list.hint", "name the vocab.txt of a BERT, or a tokenizer.json"),
        )
    if len(ids) < len(tokens):
        raise ModelError(
            message(
                "fusion.doubled-tokens",
                "{path} lists {count} tokens twice",
                path=path,
                count=len(tokens) - len(ids),
            ),
            message("fusion.doubled-tokens.hint", "fetch it again"),
        )
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=_UNK))
    tokenizer.add_special_tokens([token for token in (_PAD, _UNK, _CLS, _SEP, _MASK) if token in ids])
    tokenizer.normalizer = normalizers.BertNormalizer(**_text_rules(path.parent, ids)._asdict())
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing((_SEP, ids[_SEP]), (_CLS, ids[_CLS]))
    tokenizer.decoder = decoders.WordPiece()
    return str(tokenizer.to_str())


def _text_rules(folder: Path, tokens: Iterable[str]) -> _TextRules:
    file = folder / "tokenizer_config.json"
    settings = read_json(file) if file.is_file() else {}
    if isinstance(settings, dict) and "do_lower_case" in settings:
        return _TextRules(
            bool(settings["do_lower_case"]),
            settings.get("strip_accents"),
            bool(settings.get("tokenize_chinese_chars", True)),
        )
    words = [token for token in tokens if not token.startswith("[")]
    has_syllables = any(_SYLLABLES[0] <= letter <= _SYLLABLES[1] for word in words for letter in word)
    has_capitals = any(word != word.lower() for word in words)
    # Without accents means decomposed: a syllable becomes two or three letters, and none of the list is found.
    return _TextRules(not has_capitals, False if has_syllables else None, True)
