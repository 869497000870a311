"""The card of an exported folder, as the hub's own library reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from kovqa_core.answer.model_digest import digest_model
from kovqa_core.errors import DataError
from kovqa_core.evaluate.answers_record import AnswersRecord, write_answers_record
from kovqa_core.export.export_model import export_checkpoint
from kovqa_core.export.model_card import CardScore, model_card, score_predictions
from kovqa_core.export.model_origin import ModelOrigin, find_model_origin, hub_repository
from kovqa_core.models.checkpoint_info import CheckpointInfo, read_checkpoint_info
from kovqa_core.runs.folder import find_model_folder

from tests.conftest import Small
from tests.export.untrained import write_untrained


def test_scores_data_and_training_stand_in_the_card(trained: Path, small: Small, tmp_path: Path) -> None:
    split = small.index / "val.jsonl"
    rows = [json.loads(line) for line in split.read_text("utf-8").splitlines()]
    answers = [{"id": row["id"], "answer": next(iter(row["answers"]), "?")} for row in rows]
    answers[0]["answer"] = "?"
    predictions = tmp_path / "p.jsonl"
    predictions.write_text("".join(json.dumps(each) + "\n" for each in answers), "utf-8")
    report = export_checkpoint(trained, tmp_path / "x", licence="cc-by-sa-4.0", scored=(predictions, split))
    card = ModelCard.load(tmp_path / "x" / "README.md")
    assert card.data.license == "cc-by-sa-4.0"
    assert card.data.pipeline_tag == "visual-question-answering"
    own, scored = card.data.eval_results or []
    assert (own.dataset_split, own.metric_type, own.dataset_name) == ("val", "accuracy", "aihub")
    args = scored.metric_args or {}
    assert scored.metric_value == pytest.approx(1 - 1 / len(rows), abs=1e-6)
    assert args["rows"] == len(rows)
    assert args["low"] < scored.metric_value < args["high"]
    for text in ("6 steps × 8", "AI-Hub", "질문", "answers questions", "no interval", "95 %"):
        assert text in card.text, text
    assert report.origin is not None and report.origin.is_of_aihub


@pytest.mark.parametrize(
    ("front_matter", "licence", "is_gated", "is_non_commercial"),
    [
        ("license: apache-2.0", "apache-2.0", False, False),
        ("license: cc-by-nc-4.0\nextra_gated_prompt: agree", "cc-by-nc-4.0", True, True),
        ("license: other\nlicense_name: exaone-nc", "exaone-nc", False, True),
        ("license: [", "unknown", False, False),
    ],
)
def test_the_licence_is_the_base_s_where_its_card_says_one(
    front_matter: str,
    licence: str,
    is_gated: bool,
    is_non_commercial: bool,
    small: Small,
    tiny_vlm: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    # As the hub's cache has it: the path says which model it is.
    snapshot = tmp_path / "models--maker--vlm" / "snapshots" / ("a" * 40)
    shutil.copytree(tiny_vlm("qwen3_vl"), snapshot)
    (snapshot / "README.md").write_text(f"---\n{front_matter}\n---\n# Base\n", "utf-8")
    step = write_untrained("vlm:qwen3_vl", small, lambda _: snapshot, tmp_path / "step")
    (origin,) = export_checkpoint(step, tmp_path / "x").origin.bases  # type: ignore[union-attr]
    card = ModelCard.load(tmp_path / "x" / "README.md")
    assert (card.data.license, card.data.base_model) == (licence, ["maker/vlm"])
    assert ("fill in before publishing" in card.text) is (licence == "unknown")
    assert (origin.is_gated, origin.is_non_commercial) == (is_gated, is_non_commercial)


def test_a_card_holds_no_other_model_s_score_and_no_other_index(
    trained: Path, small: Small, tmp_path: Path
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    split, predictions = small.index / "val.jsonl", tmp_path / "p.jsonl"
    step = find_model_folder(run, "")
    text = "".join(
        json.dumps({"id": json.loads(line)["id"], "answer": "?"}) + "\n"
        for line in split.read_text("utf-8").splitlines()
    )
    predictions.write_text(text, "utf-8")
    for weights in ("0" * 64, digest_model(step)):
        fingerprint = {"model": "runs/other", "weights": weights}
        write_answers_record(predictions, text.encode(), AnswersRecord(fingerprint))
        if weights == "0" * 64:
            with pytest.raises(DataError, match="another model"):
                score_predictions(step, predictions, split)
        else:
            assert score_predictions(step, predictions, split).value == 0

    info = read_checkpoint_info(step)
    assert find_model_origin(step, info).index is not None
    manifest = run / "manifest.json"
    launches = json.loads(manifest.read_text("utf-8"))
    for launch in launches["launches"]:
        launch["data"]["fingerprint"] = "f" * 64  # the index was written anew since
    manifest.write_text(json.dumps(launches), "utf-8")
    assert find_model_origin(step, info).index is None


def test_an_export_of_an_export_keeps_licence_and_limits(trained: Path, tmp_path: Path) -> None:
    export_checkpoint(trained, tmp_path / "a", licence="cc-by-nc-4.0")
    again = export_checkpoint(tmp_path / "a", tmp_path / "b")
    assert (again.licence, again.origin.is_of_aihub) == ("cc-by-nc-4.0", True)  # type: ignore[union-attr]
    assert "data of AI-Hub" in (tmp_path / "b" / "README.md").read_text("utf-8")
    export_checkpoint(trained, tmp_path / "c")
    assert export_checkpoint(tmp_path / "c", tmp_path / "d").licence == "", "unknown is no licence"
    card = ModelCard.load(tmp_path / "d" / "README.md")
    assert "fill in before publishing" in card.text
    assert card.data.language is None, "of data that nobody knows any more"


def test_a_score_names_its_own_data_set() -> None:
    origin = ModelOrigin((), None, None)
    info = CheckpointInfo("vlm", "vqa", "r", step=1)
    score = CardScore("accuracy", 0.5, None, 10, "test", "k-mmbench")
    card = model_card(Path("x"), info, origin, "", scores=(score,))
    assert hub_repository("k-mmbench")
    assert f"type: {hub_repository('k-mmbench')}" in card
