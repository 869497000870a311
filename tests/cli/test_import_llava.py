"""kovqa import and export of LLaVA's own folders: answered with at once, trained further, exported again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from kovqa_core.answer import local
from kovqa_core.answer.job import AnswerJob, AnswerOptions, run_answer_job
from kovqa_core.errors import AssetError, KovqaError, ModelError, SettingsError
from kovqa_core.export.export_model import export_checkpoint
from kovqa_core.models import family
from kovqa_core.models.vlm.hf_libraries import transformers
from kovqa_core.models.vlm.import_llava import import_llava_folder
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.settings.resolve import resolve_settings
from safetensors.torch import load_file

from kovqa_cli.commands.import_model import import_
from tests import parity
from tests.conftest import Kovqa, sets
from tests.models.vlm.llava_folders import CLIP, MERGED, NEWER, TRAINED, VICUNA, Weights, write_folder
from tests.models.vlm.test_parity_training import index_of

IMAGE = parity.path("images/im_00.png", "llava")
STATE_DICT = parity.path("state_dict.pt", "vqa_nia")
TABLE = "model.embed_tokens.weight"


def read_projector(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "mm_projector.bin", weights_only=True)


def test_a_projector_is_imported_trained_further_and_exported_again(kovqa: Kovqa, tmp_path: Path) -> None:
    """It goes on where it was, changes only what the recipe trains, and keeps the old rule of blanks."""
    (tmp_path / "home" / "assets").mkdir(parents=True)
    (tmp_path / "home" / "assets" / CLIP.name).symlink_to(CLIP)  # found by the name in the configuration
    home = {"KOVQA_HOME": str(tmp_path / "home")}
    done = kovqa("import", TRAINED, "--base", VICUNA, "-o", "바탕", **home)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "바탕\n"
    assert "kovqa train -r llava-v1 --data DIR --set model.base=바탕\n" in done.stderr

    settings = [f"model.base={tmp_path}/바탕", "model.dtype=fp32", "optim.epochs=null", "optim.steps=2"]
    machine = [
        "optim.warmup_epochs=0",
        "profile.threads=1",
        "profile.micro_batch={default: 2}",
        "optim.global_batch=4",
    ]
    command = ["train", "-r", "llava-v1", "-p", "cpu", "--data", index_of(tmp_path), "-o", "run"]
    done = kovqa(*command, *sets(*settings, *machine))
    assert done.returncode == 0, done.stderr
    done = kovqa("export", "run", "--as-upstream", "-o", "llava-again", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == ["README.md", "config.json", "mm_projector.bin"]

    before, after = read_projector(TRAINED), read_projector(tmp_path / "llava-again")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert 0 < (after[name] - tensor).abs().max() < 2.5 * 2e-3, name  # two steps of Adam, not a new draw
    changed = (after[TABLE] != before[TABLE]).any(1).nonzero().flatten().tolist()
    assert changed == [1001, 1002]

    import_llava_folder(tmp_path / "llava-again", tmp_path / "third", str(VICUNA), str(CLIP))
    tensors = load_file(tmp_path / "third" / "model.safetensors")
    assert torch.equal(tensors["multi_modal_projector.linear_1.weight"], after["model.mm_projector.weight"])

    step = export_checkpoint(tmp_path / "run", tmp_path / "whole").step
    model, _ = family.read_model_folder(find_model_folder(tmp_path / "whole", "vqa"), "vqa")
    assert (model.config.instruction, model.config.dtype) == ("none", "fp32")  # prompted as it was trained
    for folder in (tmp_path / "바탕", step / "processor", tmp_path / "whole", tmp_path / "third"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ids = tokenizer("USER: <im_start><im_patch><im_end>\nWhat is")["input_ids"]
        added_tokens = [
            "<im_start>",
            "<im_patch>",
            "<im_end>",
        ]  # the blank before them and the line's end: gone
        assert tokenizer.convert_ids_to_tokens(ids) == ["<s>", "▁USER", ":", *added_tokens, "▁What", "▁is"]


def test_an_imported_folder_is_a_model(tmp_path: Path) -> None:
    """As it is: for kovqa predict, with the chosen settings; and plain, for others."""
    imported = import_llava_folder(
        MERGED, tmp_path / "m", None, str(CLIP), ["model.max_new_tokens=3", "model.system=llava_v1"]
    )
    assert (imported.folder_type, imported.settings) == ("merged", [])
    answered = local.answer_question(IMAGE, "What is it?", AnswerOptions(tmp_path / "m"))
    model, processor = family.read_model_folder(Path(answered.model), "vqa")
    assert model.generator.max_new_tokens == 3
    assert processor.config.instruction == "none"
    assert "a curious human" in processor.hf.chat_template
    about = json.loads((tmp_path / "m" / "kovqa.json").read_text(encoding="utf-8"))
    about["model"] |= {"trust_remote_code": True, "base": "elsewhere", "instruction": "ko"}
    (tmp_path / "m" / "kovqa.json").write_text(json.dumps(about), encoding="utf-8")
    model, _ = family.read_model_folder(tmp_path / "m", "vqa")
    assert (model.config.instruction, model.config.trust_remote_code) == ("ko", False)
    (tmp_path / "m" / "kovqa.json").unlink()
    model, _ = family.read_model_folder(find_model_folder(tmp_path / "m", "vqa"), "vqa")
    assert model.generator.max_new_tokens == 16
    options = AnswerOptions(tmp_path / "m")
    job = AnswerJob(rows(tmp_path / "t.jsonl"), tmp_path / "p.jsonl", options, images=IMAGE.parent, batch=2)
    run_answer_job(job, local.local_backend(options))
    assert (tmp_path / "p.jsonl").is_file()


def rows(path: Path) -> Path:
    path.write_text(json.dumps({"id": "1", "image": IMAGE.name, "question": "What?"}) + "\n")
    return path


def test_the_two_layers_of_one_point_five_come_and_go(tmp_path: Path) -> None:
    imported = import_llava_folder(NEWER, tmp_path / "m", None, str(CLIP))
    assert imported.settings == ["model.tokens=[]", "model.frozen=[]"]
    assert imported.unread_files == []
    export_checkpoint(tmp_path / "m", tmp_path / "again", as_upstream=True)
    theirs = torch.load(NEWER / "pytorch_model.bin", weights_only=True)
    ours = read_projector(tmp_path / "again")
    assert ours.keys() == {name for name in theirs if "mm_projector" in name}
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    about = json.loads((tmp_path / "again" / "config.json").read_text(encoding="utf-8"))
    original = json.loads((NEWER / "config.json").read_text(encoding="utf-8"))
    names = [name for name in original if name.startswith(("mm_", "image_", "num_"))]
    assert {name: about[name] for name in names} == {name: original[name] for name in names}


ADVICE = {
    "frame, one layer": (MERGED, {}, [], {"linear_1"}),
    "no token, one layer": (
        MERGED,
        {"mm_use_im_patch_token": False, "mm_use_im_start_end": False},
        ["model.tokens=[]"],
        {"linear_1"},
    ),
    "patch token, one layer": (MERGED, {"mm_use_im_start_end": None}, ["model.tokens=[]"], {"linear_1"}),
    "no token, two layers": (NEWER, {}, ["model.tokens=[]", "model.frozen=[]"], {"linear_1", "linear_2"}),
    "frame, two layers": (
        NEWER,
        {"mm_use_im_patch_token": True, "mm_use_im_start_end": True},
        ["model.frozen=[]"],
        {"linear_1", "linear_2"},
    ),
}


@pytest.mark.parametrize("name", ADVICE)
def test_the_advice_to_train_further_trains_the_projector_that_there_is(name: str, tmp_path: Path) -> None:
    source, config, settings, expected = ADVICE[name]
    write_folder(tmp_path / "llava", source, config)
    (tmp_path / "llava" / "added_tokens.json").unlink(missing_ok=True)
    imported = import_llava_folder(tmp_path / "llava", tmp_path / "m", None, str(CLIP))
    assert imported.settings == settings
    # What recipe llava-v1 selects, with the advised settings, and what it says without them.
    for advised, is_said in ((settings, False), ([s for s in settings if "frozen" not in s], "two" in name)):
        overrides = [f"model.base={tmp_path / 'm'}", f"data.index={tmp_path}", *advised]
        recipe = resolve_settings("llava-v1", "cpu", overrides, {}).recipe
        model, _, note = family.create_model(recipe, [])
        learning = {
            n.split(".")[-2] for n, p in model.net.named_parameters() if p.requires_grad and "projector" in n
        }
        assert ("only linear_1 of the projector's two layers learns" in note) == is_said
        assert learning == ({"linear_1"} if is_said else expected)


def test_the_identity_of_a_single_layer_that_learns_is_said(tmp_path: Path) -> None:
    import_llava_folder(MERGED, tmp_path / "m", None, str(CLIP))
    overrides = [f"model.base={tmp_path / 'm'}", f"data.index={tmp_path}", "model.frozen=[]"]
    _, _, note = family.create_model(resolve_settings("llava-v1", "cpu", overrides, {}).recipe, [])
    assert "linear_2, which stands for the layer that LLaVA v1 does not have, learns" in note


@pytest.mark.parametrize(
    "config",
    [
        {"mm_use_im_patch_token": False, "mm_use_im_start_end": False},
        {"mm_use_im_patch_token": False, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"mm_use_im_start_end": False, "rope_theta": 500000.0, "tie_word_embeddings": True},
    ],
)
def test_a_projector_goes_out_as_it_came(config: dict[str, Any], tmp_path: Path) -> None:
    """Whatever tokens it has: `<image>`, which the original does not know, is in no table and no number."""
    rows = 1000 + sum(
        number * config.get(name, True)
        for name, number in (("mm_use_im_patch_token", 1), ("mm_use_im_start_end", 2))
    )

    def keep(weights: Weights) -> None:
        for table in (TABLE, "lm_head.weight"):
            weights[table] = weights[table][:rows]
        if config.get("tie_word_embeddings"):
            del weights["lm_head.weight"]

    weights, original = write_folder(tmp_path / "llava", MERGED, {**config, "vocab_size": rows}, keep)
    (tmp_path / "llava" / "added_tokens.json").unlink()
    import_llava_folder(tmp_path / "llava", tmp_path / "m", None, str(CLIP))
    export_checkpoint(tmp_path / "m", tmp_path / "again", as_upstream=True)
    ours = read_projector(tmp_path / "again")
    has_frame = config.get("mm_use_im_start_end", True)
    assert ours.keys() == {n for n in weights if "mm_projector" in n or (has_frame and n == TABLE)}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in ours.items())
    about = json.loads((tmp_path / "again" / "config.json").read_text(encoding="utf-8"))
    names = about.keys() & original.keys() - {"architectures", "tune_mm_mlp_adapter"}
    assert {name: about[name] for name in names} == {name: original[name] for name in names}


def test_the_command_takes_a_projectors_file_and_says_what_it_does_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The published 1.5 holds whole weights, and beside them the projector of its first stage."""
    write_folder(tmp_path / "llava", NEWER, {})
    torch.save({}, tmp_path / "llava" / "mm_projector.bin")
    shutil.copytree(CLIP, tmp_path / "renamed")
    import_(tmp_path / "llava", tmp_path / "m", vision=str(tmp_path / "renamed"), json=False, quiet=False)
    said = capsys.readouterr().err
    assert "not read: " in said
    assert f"trained with the image encoder {CLIP.name}" in said
    import_(
        TRAINED / "mm_projector.bin",
        tmp_path / "n",
        base=str(VICUNA),
        vision=str(CLIP),
        json=True,
        quiet=False,
    )
    assert json.loads(capsys.readouterr().out)["kind"] == "projector"


def test_a_model_of_another_architecture_has_no_llava_projector(
    kovqa: Kovqa, trained: Path, tiny_vlm: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"only a LLaVA of CLIP and Llama .* this is qwen3_vl"):
        export_checkpoint(tiny_vlm("qwen3_vl"), tmp_path / "x", as_upstream=True)
    assert not (tmp_path / "x").exists()
    done = kovqa("export", trained, "--as-upstream", "-o", "x")
    assert done.returncode == 2
    assert "family beit3, which is exported in one form only" in done.stderr
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_imported_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "home"))
    (tmp_path / "empty").mkdir()
    import_llava_folder(MERGED, tmp_path / "plain", None, str(CLIP))
    refused: list[tuple[Path, str | None, str | None, list[str], type[KovqaError], str]] = [
        (TRAINED, None, str(CLIP), [], SettingsError, "does not hold its language model"),
        (MERGED, str(VICUNA), str(CLIP), [], SettingsError, "holds its language model itself"),
        (TRAINED, str(VICUNA), None, [], AssetError, "vision encoder clip-tiny-patch14 not found"),
        (TRAINED, "vicuna", str(CLIP), [], AssetError, "language model vicuna not found"),
        (VICUNA, None, None, [], SettingsError, "does not name a vision encoder"),
        (MERGED, None, str(CLIP), ["model.sistem=v1"], SettingsError, "did you mean system"),
        (tmp_path / "empty", None, None, [], ModelError, "is not a LLaVA folder"),
        (tmp_path / "plain", None, None, [], ModelError, "in Hugging Face's layout already"),
    ]
    for folder, base, vision, overrides, error, expected in refused:
        with pytest.raises(error, match=expected):
            import_llava_folder(folder, tmp_path / "x", base, vision, overrides)
        assert not (tmp_path / "x").exists()


def test_an_unconverted_llava_folder_names_the_command_that_converts_it(tmp_path: Path) -> None:
    shutil.copytree(TRAINED, tmp_path / "내 llava")
    with pytest.raises(ModelError, match="layout of the original LLaVA") as refused:
        family.read_model_folder(find_model_folder(tmp_path / "내 llava", "vqa"), "vqa")
    command = f"kovqa import '{tmp_path}/내 llava' --base VICUNA --vision CLIP -o '내 llava-plain'"
    assert refused.value.hint == f"convert it first: {command}"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"checkpoint": TRAINED, "labels": Path("data_ko.csv")}, "it needs no --labels"),
        ({"checkpoint": STATE_DICT}, "needs --labels and --tokenizer"),
        ({"checkpoint": STATE_DICT, "base": "vicuna"}, "--base and --vision are LLaVA's"),
    ],
)
def test_options_of_the_other_original_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        import_(output=Path("x"), **options, quiet=True)
