"""The Dacon LLaVA scripts' files: conversations to train on, questions to answer (docs/sources/llava.md, L4).

Every row is written, whether its image exists or not; paths are absolute.
"""

from __future__ import annotations

import json
from pathlib import Path

from kovqa_core.data.json_values import JsonRecord
from kovqa_core.data.tables import read_table
from kovqa_core.index.upstream.rows import EncodeText, require_inside, write_json_rows
from kovqa_core.messages import message

NEEDS_TOKENIZER = False


def write_upstream_files(root: Path, images: Path, folder: Path, encode: EncodeText) -> None:
    """Write `output.json` (training) and `test.jsonl`."""
    training = [
        {
            "id": row["ID"],
            "image": str(images / f"train/{row['image_id']}.jpg"),
            "conversations": [
                {"from": "human", "value": f"<image>\n{row['question']}"},
                {"from": "gpt", "value": row["answer"]},
            ],
        }
        for row in _read_dacon_rows(root / "train.csv", "ID", "image_id", "question", "answer")
    ]
    # ASCII, four spaces and no line end at the end, as `json.dump(…, indent=4)` writes it.
    (folder / "output.json").write_text(json.dumps(training, indent=4), encoding="ascii")
    tests = _read_dacon_rows(root / "test.csv", "ID", "image_id", "question")
    write_json_rows(
        folder / "test.jsonl",
        (
            {"id": row["ID"], "image": str(images / f"test/{row['image_id']}.jpg"), "text": row["question"]}
            for row in tests
        ),
    )


def _read_dacon_rows(file: Path, *columns: str) -> list[JsonRecord]:
    hint = message("index.unpack-dacon.hint", "unpack open.zip again")
    rows = [row for _, row in read_table(file, {name: (name,) for name in columns}, hint)]
    for row in rows:
        require_inside(f"{row['image_id']}.jpg")
    return rows
