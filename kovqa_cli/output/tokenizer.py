"""What `kovqa tokenizer` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kovqa_cli.output.console import print_json, print_note, print_result, print_table


def print_trained_tokenizer(path: Path, card: Mapping[str, Any], as_json: bool, quiet: bool) -> None:
    """A tokenizer just trained or extended."""
    from kovqa_core.tokenizer.sentencepiece_model import MAX_VOCAB_SIZE

    if not quiet and card["pieces"] > MAX_VOCAB_SIZE:
        print_note(
            f"warning: {card['pieces']:,} pieces do not fit BEiT-3's published text table, {MAX_VOCAB_SIZE:,} would"
        )
    if as_json:
        print_json({"path": str(path), **card})
        return
    if not quiet and "added" in card:
        print_note(f"{card['added']:,} Korean pieces added to {card['old']['pieces']:,}")
    elif not quiet:
        wanted = card["settings"]["vocab_size"]
        fewer = f" (the text has no more for {wanted:,})" if card["pieces"] < wanted else ""
        print_note(f"{card['pieces']:,} pieces{fewer} from {card['lines']:,} lines")
    print_result(str(path))


def print_encoded_text(
    text: str, ids: Sequence[int], cut: Sequence[str], pieces: bool, as_json: bool
) -> None:
    """A text's ids, or its pieces."""
    if as_json:
        print_json({"text": text, "ids": ids, "pieces": cut})
    else:
        print_result(" ".join(cut if pieces else map(str, ids)))


def print_tokenizers(reports: Sequence[Mapping[str, Any]], as_json: bool, quiet: bool) -> None:
    """What models hold and how they fit a text, side by side."""
    if as_json:
        print_json({"models": reports})
    elif quiet:
        for report in reports:
            print_result(
                f"{report['text']['pieces_per_word']:.4f}" if "text" in report else str(report["pieces"])
            )
    else:
        columns = [_model_column(report) for report in reports]
        names = [("", "left"), *((Path(report["path"]).name, "right") for report in reports)]
        print_table(names, [[row, *(column[row] for column in columns)] for row in columns[0]])


def _model_column(report: Mapping[str, Any]) -> dict[str, str]:
    card = report["card"] or {}
    column = {"pieces": f"{report['pieces']:,}"}
    column |= {f"  {name}": f"{number:,}" for name, number in report["scripts"].items()}
    column["ids"] = "not XLM-R's" if report["broken_rule"] else "XLM-R's"
    column["sha256"] = report["sha256"][:16]
    column["made of"] = _describe_source(card)
    column["date"] = str(card.get("date", ""))[:10]
    if text := report.get("text"):
        column |= {
            "text": Path(text["path"]).name,
            "  lines": f"{text['lines']:,}",
            "  characters covered": f"{text['characters_covered']:.3%}",
            "  unknown pieces": f"{text['unknown_rate']:.3%}",
            "  byte pieces": f"{text['byte_share']:.3%}",
            "  pieces per word": f"{text['pieces_per_word']:.3f}",
            "  pieces per character": f"{text['pieces_per_character']:.4f}",
            "  pieces per line": f"{text['pieces_per_line']:.2f}",
        }
    return column


def _describe_source(card: Mapping[str, Any]) -> str:
    if "added" in card:
        return f"{card['old']['pieces']:,} + {card['added']:,} pieces"
    return f"{card['lines']:,} lines" if "lines" in card else card.get("other", "no card")
