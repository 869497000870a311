"""What `kovqa tokenizer` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovqa_core.messages import join_messages, message

from kovqa_cli.output.console import print_json, print_note, print_outcome, print_result
from kovqa_cli.output.table import print_table

if TYPE_CHECKING:
    from kovqa_core.tokenizer.card import TokenizerCard
    from kovqa_core.tokenizer.inspect import TokenizerReport


def print_trained_tokenizer(path: Path, card: TokenizerCard, *, as_json: bool, quiet: bool) -> None:
    """A tokenizer just trained or extended."""
    from kovqa_core.tokenizer.sentencepiece_model import MAX_VOCAB_SIZE
    from kovqa_core.tokenizer.unlearnable import left_out_lines_text

    if not quiet and card.pieces > MAX_VOCAB_SIZE:
        print_note(
            message(
                "tokenizer.too-many-tokens",
                "warning: {tokens:,} tokens do not fit BEiT-3's published text table, which has room for {room:,}",
                tokens=card.pieces,
                room=MAX_VOCAB_SIZE,
            )
        )
    if not quiet and card.left_out:
        print_note(left_out_lines_text(Counter(card.left_out), card.lines or 0))
    fields = {"path": str(path), **card.to_json()}
    print_outcome(str(path), fields, [_describe_training(card)], as_json=as_json, quiet=quiet)


def _describe_training(card: TokenizerCard) -> str:
    if card.old is not None:
        return message(
            "tokenizer.extended",
            "{added:,} Korean tokens added to {old:,}",
            added=card.added,
            old=card.old["pieces"],
        )
    vocab_size = int((card.settings or {}).get("vocab_size", 0))
    if card.pieces < vocab_size:
        return message(
            "tokenizer.trained-fewer",
            "{tokens:,} tokens (the text has no more for {vocab_size:,}) from {lines:,} lines",
            tokens=card.pieces,
            vocab_size=vocab_size,
            lines=card.lines,
        )
    return message(
        "tokenizer.trained", "{tokens:,} tokens from {lines:,} lines", tokens=card.pieces, lines=card.lines
    )


def print_encoded_text(
    text: str, ids: Sequence[int], tokens: Sequence[str], *, show_tokens: bool, as_json: bool
) -> None:
    """A text's ids, or its tokens."""
    if as_json:
        print_json({"text": text, "ids": ids, "pieces": tokens})
    else:
        print_result(" ".join(tokens if show_tokens else map(str, ids)))


def print_tokenizers(reports: Sequence[TokenizerReport], *, as_json: bool, quiet: bool) -> None:
    """What models hold and how they fit a text, side by side."""
    if as_json:
        print_json({"models": [report.to_json() for report in reports]})
    elif quiet:
        for report in reports:
            ratios = report.text[1].ratios() if report.text else None
            print_result(f"{ratios['pieces_per_word']:.4f}" if ratios else str(report.tokens))
    else:
        columns = [dict(_model_column(report)) for report in reports]
        names = [("", "left"), *((Path(report.path).name, "right") for report in reports)]
        print_table(names, [[row, *(column.get(row, "") for column in columns)] for row in columns[0]])


def _model_column(report: TokenizerReport) -> Iterator[tuple[str, str]]:
    """A model's column of the table: names of rows, and cells."""
    card = report.card or {}
    yield message("tokenizer.row-tokens", "tokens"), f"{report.tokens:,}"
    for name, number in report.scripts.items():
        yield _indented(_script_name(name)), f"{number:,}"
    follows = message("tokenizer.ids-of-xlmr", "XLM-R's")
    ids = message("tokenizer.ids-not-of-xlmr", "not XLM-R's") if report.rule_violation else follows
    yield message("tokenizer.row-ids", "ids"), ids
    yield "sha256", report.sha256[:16]
    yield message("tokenizer.row-source", "made of"), _describe_source(card)
    yield message("tokenizer.row-date", "date"), str(card.get("date", ""))[:10]
    if report.text:
        path, coverage = report.text
        yield message("tokenizer.row-text", "text"), Path(path).name
        for name, value in _coverage_rows(coverage.ratios()):
            yield _indented(name), value


def _coverage_rows(ratios: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    yield message("tokenizer.row-lines", "lines"), f"{ratios['lines']:,}"
    yield message("tokenizer.row-covered", "characters covered"), f"{ratios['characters_covered']:.3%}"
    yield message("tokenizer.row-unknown", "unknown tokens"), f"{ratios['unknown_rate']:.3%}"
    yield message("tokenizer.row-byte-rate", "byte tokens"), f"{ratios['byte_share']:.3%}"
    yield message("tokenizer.row-per-word", "tokens per word"), f"{ratios['pieces_per_word']:.3f}"
    yield (
        message("tokenizer.row-per-character", "tokens per character"),
        f"{ratios['pieces_per_character']:.4f}",
    )
    yield message("tokenizer.row-per-line", "tokens per line"), f"{ratios['pieces_per_line']:.2f}"


def _indented(name: str) -> str:
    return join_messages("", ["  ", name])


def _script_name(name: str) -> str:
    """Kinds of tokens, as `TokenizerReport` counts them."""
    return {
        "Hangul": message("tokenizer.row-hangul", "Hangul"),
        "Latin": message("tokenizer.row-latin", "Latin"),
        "digits": message("tokenizer.row-digits", "digits"),
        "other": message("tokenizer.row-other", "other"),
        "bytes": message("tokenizer.row-byte-tokens", "bytes"),
        "special": message("tokenizer.row-special", "special"),
    }.get(name, name)


def _describe_source(card: Mapping[str, Any]) -> str:
    if "added" in card:
        old, added = card["old"]["pieces"], card["added"]
        return message("tokenizer.source-extended", "{old:,} + {added:,} tokens", old=old, added=added)
    if "lines" in card:
        return message("tokenizer.source-lines", "{lines:,} lines", lines=card["lines"])
    return card.get("other") or message("tokenizer.source-unknown", "no card")
