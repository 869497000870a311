"""BEiT-3's files of VQAv2 (docs/sources/beit3.md, B24 to B27).

Its habits: classes are counted over training and validation; scores go to raw answers that happen to be
spelled like a class; rows are in the order of the images that exist. The original shuffles images without a
seed before it cuts validation in two; here a hash decides, so that it can be repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kovqa_core.data.answers import soft_score
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.index.hash_split import hash_fraction
from kovqa_core.index.sources.vqav2 import (
    MIN_ANSWER_COUNT,
    VQAV2_PARTS,
    cached_normal_form,
    iter_annotated_questions,
    present_images,
    vqav2_files,
    vqav2_image_path,
)
from kovqa_core.index.upstream.rows import (
    EncodeText,
    UpstreamRow,
    label_by_first_seen,
    write_answer2label,
    write_json_rows,
)

_REST_VAL_IMAGES = 1000  # validation images that are never trained on

NEEDS_TOKENIZER = True


def write_upstream_files(root: Path, images: Path, folder: Path, encode: EncodeText) -> None:
    """Write `vqa.{train,val,test,test-dev,trainable_val,rest_val}.jsonl` and `answer2label.txt`."""
    labels = label_by_first_seen(_most_given_answers(root), MIN_ANSWER_COUNT)
    write_answer2label(folder, labels)
    for part, split in VQAV2_PARTS.items():
        if split in ("train", "val") or vqav2_files(root, part)[0].is_file():
            rows = _vqav2_rows(root, images, part, labels, encode)
            if split != "val":
                write_json_rows(folder / f"vqa.{split}.jsonl", rows)
                continue
            all_val = list(rows)
            # By image, so that no image is in both files.
            rest = _choose_rest_val({str(row["image_path"]) for row in all_val})
            write_json_rows(folder / "vqa.val.jsonl", all_val)
            write_json_rows(folder / "vqa.rest_val.jsonl", (r for r in all_val if r["image_path"] in rest))
            trainable = (row for row in all_val if row["image_path"] not in rest)
            write_json_rows(folder / "vqa.trainable_val.jsonl", trainable)


def _most_given_answers(root: Path) -> Iterator[str]:
    for part in ("train2014", "val2014"):
        for row in iter_json_records(vqav2_files(root, part)[1], "annotations", ("multiple_choice_answer",)):
            yield cached_normal_form(row["multiple_choice_answer"])


def _choose_rest_val(image_paths: set[str]) -> set[str]:
    return set(sorted(image_paths, key=lambda path: hash_fraction("rest_val", path))[:_REST_VAL_IMAGES])


def _vqav2_rows(
    root: Path, images: Path, part: str, labels: dict[str, int], encode: EncodeText
) -> Iterator[UpstreamRow]:
    # In the order of the images, not of the questions: so the original writes them.
    by_image: dict[str, list[UpstreamRow]] = {path: [] for path in sorted(present_images(images, part))}
    for question, annotation in iter_annotated_questions(root, part):
        path = vqav2_image_path(part, question["image_id"])
        counts = Counter(answer["answer"] for answer in annotation.get("answers", ()))
        known = {labels[answer]: soft_score(n) for answer, n in counts.items() if answer in labels}
        # Test questions have no answers, and are all kept.
        if path in by_image and (known or part.startswith("test")):
            by_image[path].append(
                {
                    "image_path": path,
                    "text_segment": encode(question["question"]),
                    "labels": list(known),
                    "scores": list(known.values()),
                    "qid": question["question_id"],
                }
            )
    for rows in by_image.values():
        yield from rows
