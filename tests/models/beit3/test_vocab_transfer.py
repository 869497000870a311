"""A text table for a new tokenizer takes the rows of the old one along, token by token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kovqa_core.errors import AssetError, ModelError, SettingsError
from kovqa_core.files import read_json, write_json
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.beit3.family import Beit3Model
from kovqa_core.models.beit3.vocab_transfer import VocabTransfer, plan_vocab_transfer, transfer_vocab_rows
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.models.xlmr_tokenizer import XlmrTokenizer, load_xlmr_tokenizer
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.tokenizer.train import train_tokenizer
from safetensors.torch import save_file
from torch import Tensor

from tests import parity
from tests.conftest import Kovqa, Small, sets, training

TABLE = "beit3.text_embed.weight"


def named(*tokens: str) -> list[str]:
    """The token of every id, special ones included."""
    return ["<s>", "<pad>", "</s>", "<unk>", *tokens, "<mask>"]


OLD = named("▁", "▁red", "ed", "사", "▁사", "과", "<0xEA>", "<0xB0>")  # ids 4 to 11
SPELLED = {" 사과": [8, 9], "\ue000과": [4, 3, 9], "\ue000사과": [4, 3, 7, 9], "\ue000과과사": [3, 9, 9, 7]}
SPELLED |= {" 강red": [4, 10, 11, 6], " 강": [4, 10, 11], "\ue000뷁": [4, 3], "": []}


def test_a_plan_on_paper() -> None:
    new = named("▁사과", "▁red", "▁", "사과", "과과사", "뷁", "▁강", "▁강red", "<0xEA>", "<0x80>")
    transfer = plan_vocab_transfer(OLD, new, SPELLED.__getitem__)
    assert transfer.copied == {
        0: 0,
        1: 1,
        2: 2,
        3: 3,
        5: 5,
        6: 4,
        12: 10,
        14: 12,
    }  # <mask> is the last of each
    assert transfer.averaged == {4: (8, 9), 7: (7, 9), 8: (9, 9, 7), 11: (6,)}
    assert transfer.randomly_initialised == (9, 10, 13)  # unknown; bytes alone; a byte the old one lacks
    assert (transfer.old_size, transfer.new_size) == (len(OLD), len(new))
    assert transfer.describe() == "8 tokens copied, 4 averaged, 3 randomly initialised"


def test_an_extended_vocabulary_keeps_every_row() -> None:
    transfer = plan_vocab_transfer(OLD, [*OLD[:-1], "▁사과", "<mask>"], SPELLED.__getitem__)
    assert transfer.copied == {**{i: i for i in range(12)}, 13: 12}
    assert (transfer.averaged, transfer.randomly_initialised) == ({12: (8, 9)}, ())
    table = torch.arange(26.0).reshape(13, 2)
    assert transfer_vocab_rows(table, transfer, torch.Generator()).tolist() == [
        *table[:12].tolist(),
        [17.0, 18.0],
        [24.0, 25.0],
    ]


@pytest.mark.parametrize("shape", [(6,), (6, 3)], ids=["bias", "table"])
def test_rows_are_copied_averaged_and_drawn(shape: tuple[int, ...]) -> None:
    table = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3 + 1
    many = VocabTransfer(4, 5003, {0: 3, 2: 1}, {1: (0, 2), 4: (2, 2, 0)}, (3, *range(5, 5003)))
    rows = transfer_vocab_rows(table, many, torch.Generator().manual_seed(5))
    assert torch.equal(rows[0], table[3])
    assert torch.equal(rows[2], table[1])
    torch.testing.assert_close(rows[1], (table[0] + table[2]) / 2)
    torch.testing.assert_close(rows[4], (table[2] + table[2] + table[0]) / 3)
    drawn, known = rows[list(many.randomly_initialised)], table[:4]  # rows 4 and 5 belong to no token
    torch.testing.assert_close(drawn.mean(0), known.mean(0), atol=0.2, rtol=0)
    torch.testing.assert_close(drawn.std(0), known.std(0), atol=0, rtol=0.05)
    assert torch.equal(rows, transfer_vocab_rows(table, many, torch.Generator().manual_seed(5)))
    assert not torch.equal(rows, transfer_vocab_rows(table, many, torch.Generator().manual_seed(6)))


def parts(old: XlmrTokenizer, token: str) -> list[str]:
    """The old tokens whose mean a token takes."""
    row = plan_vocab_transfer(old.vocab, named(token), old.encode).averaged.get(4, ())
    return [old.vocab[part] for part in row]


def test_pieces_are_spelled_as_they_stand_in_a_word() -> None:
    """By the recorded tokenizer: with the word's blank, or without it."""
    old = load_xlmr_tokenizer(parity.path("tokenizer.model"))
    assert parts(old, "▁빨간색은") == ["▁빨간색", "은"]
    assert parts(old, "빨간") == ["빨", "간"]
    assert parts(old, "나요?") == ["나요", "?"]
    assert parts(old, "▁나요") == ["나요"]  # its own blank alone says nothing
    assert parts(old, "▁쀍") == []


# ------------------------------------------------------------------- weights through a recipe


@pytest.fixture(scope="module")
def korean(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new small tokenizer that shares some words, syllables and marks with the recorded one."""
    folder = tmp_path_factory.mktemp("새 낱말")
    (folder / "text.txt").write_text("red 원, blue 원, 빨간색은, 빨간색,\n" * 9, encoding="utf-8")
    train_tokenizer([small.root / "text.txt", folder / "text.txt"], folder / "새 낱말.model", 450)
    return folder / "새 낱말.model"


def recipe(small: Small, tokenizer: Path, *changes: str, weights: object = None) -> Recipe:
    """A recipe that starts from the recorded pretrained file, or from other weights."""
    about = parity.json_of("config.json")
    size = [about[key] for key in ("embed_dim", "num_heads", "num_layers", "ffn_dim")]
    options = [
        "model.size=custom", f"model.custom={size}", f"model.image_size={about['image_size']}",
        f"model.patch_size={about['patch_size']}",
        "model.reinit=[pooler, head]",
    ]  # fmt: skip
    flags = {"data.index": str(small.index), "model.tokenizer": str(tokenizer)}
    flags["model.weights"] = str(weights or parity.path("pretrain_fp16.pth"))
    return resolve_settings("tiny", "cpu", [*options, *changes], flags).recipe


def of_recorded() -> str:
    return f"model.weights_tokenizer={parity.path('tokenizer.model')}"


def new(settings: Recipe, small: Small) -> tuple[Beit3Model, str]:
    model, _, note = family.create_model(settings, open_index(small.index).answers())
    return model, note


def text_table(model: Beit3Model) -> Tensor:
    return model.net.encoder.text_embed.weight.detach()


def test_rows_are_carried_over(small: Small, korean: Path) -> None:
    model, note = new(recipe(small, korean, of_recorded()), small)
    old, fresh = load_xlmr_tokenizer(parity.path("tokenizer.model")), load_xlmr_tokenizer(korean)
    before, after = parity.weights("pretrain_fp16.pth")[TABLE], text_table(model)
    assert len(after) == fresh.vocab_size
    transfer = plan_vocab_transfer(old.vocab, fresh.vocab, old.encode)
    assert note.endswith(f"; text table: {transfer.describe()}")
    assert min(len(transfer.copied), len(transfer.averaged), len(transfer.randomly_initialised)) > 5
    for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "▁", "?", "요"):
        row, origin = fresh.vocab.index(token), old.vocab.index(token)
        assert torch.equal(after[row], before[origin]), token
    for row, origins in transfer.averaged.items():
        torch.testing.assert_close(after[row], before[list(origins)].mean(0))
    again, _ = new(recipe(small, korean, of_recorded()), small)
    other, _ = new(recipe(small, korean, of_recorded(), "seed=7"), small)
    assert torch.equal(text_table(again), after)
    assert not torch.equal(text_table(other), after)
    assert torch.equal(text_table(other)[list(transfer.copied)], after[list(transfer.copied)])


def test_the_same_tokenizer_changes_nothing(small: Small) -> None:
    model, note = new(recipe(small, parity.path("tokenizer.model"), of_recorded()), small)
    assert torch.equal(text_table(model), parity.weights("pretrain_fp16.pth")[TABLE])  # spare rows too
    assert note.endswith("text table: unchanged")


def test_rows_by_number_are_the_originals_way(small: Small, korean: Path, tmp_path: Path) -> None:
    state = parity.weights("pretrain_fp16.pth")
    large = {**state, TABLE: torch.cat([state[TABLE]] * 3)}
    torch.save({"model": large}, tmp_path / "large.pth")
    settings = recipe(small, korean, "model.text_rows=original", weights=tmp_path / "large.pth")
    model, _ = new(settings, small)
    assert torch.equal(text_table(model), large[TABLE])


def test_a_captioners_word_head_goes_along(small: Small, korean: Path) -> None:
    settings = recipe(
        small, korean, of_recorded(), "task=caption", "model.reinit=[]", weights=parity.path("captioning.pth")
    )
    model, _, _ = family.create_model(settings, [])
    old, fresh = load_xlmr_tokenizer(parity.path("tokenizer.model")), load_xlmr_tokenizer(korean)
    transfer = plan_vocab_transfer(old.vocab, fresh.vocab, old.encode)
    state = parity.weights("captioning.pth")
    for name, after in (
        ("mlm_head.weight", model.net.mlm_head.weight),
        ("mlm_head.bias", model.net.mlm_head.bias),
    ):
        assert len(after) == fresh.vocab_size
        assert torch.equal(after[list(transfer.copied)], state[name][list(transfer.copied.values())]), name
        row, origins = next(iter(transfer.averaged.items()))
        torch.testing.assert_close(after[row], state[name][list(origins)].mean(0))


def test_a_run_knows_its_own_tokenizer(small: Small, korean: Path, trained: Path) -> None:
    changes = ("model.custom=[32, 2, 2, 64]", "model.image_size=32", "model.patch_size=32")
    model, note = new(recipe(small, korean, *changes, weights=trained), small)
    own, fresh = load_xlmr_tokenizer(small.tokenizer), load_xlmr_tokenizer(korean)
    assert plan_vocab_transfer(own.vocab, fresh.vocab, own.encode).describe() in note
    step, _ = family.read_model_folder(trained / (trained / "best").read_text().strip(), "vqa")
    for token in ("<s>", "<mask>", "▁", "?"):
        row, origin = fresh.vocab.index(token), own.vocab.index(token)
        assert torch.equal(text_table(model)[row], text_table(step)[origin]), token
    for name in ("qkv.weight", "norm_ffn.bias"):  # q, k and v go apart and come together again
        one, other = (m.net.get_parameter(f"encoder.layers.1.text.{name}") for m in (model, step))
        assert torch.equal(one, other)


# ----------------------------------------------------------------------------------- errors


def test_weights_of_an_unknown_tokenizer_are_asked_about(kovqa: Kovqa, small: Small) -> None:
    arguments = training(small, f"model.weights={parity.path('pretrain_fp16.pth')}")
    done = kovqa(*arguments)
    assert done.returncode == 2
    assert "which tokenizer were the weights" in done.stderr
    assert "model.weights_tokenizer" in done.stderr
    assert "Traceback" not in done.stderr
    done = kovqa(*arguments, *sets("model.weights_tokenizer=gone.model"))
    assert done.returncode == 5
    assert "tokenizer of the weights gone.model not found" in done.stderr


def test_published_weights_want_the_published_tokenizer(small: Small, tmp_path: Path) -> None:
    (tmp_path / "beit3_x.pth").write_bytes(parity.path("pretrain_fp16.pth").read_bytes())
    with pytest.raises(AssetError, match=r"published weights beit3\.spm not found") as caught:
        new(recipe(small, small.tokenizer, weights=tmp_path / "beit3_x.pth"), small)
    assert "kovqa download beit3-tokenizer" in caught.value.hint


def test_a_table_too_small_is_an_error(small: Small, korean: Path) -> None:
    """For the tokenizer it is said to have, and for ours when rows stay at their number."""
    with pytest.raises(ModelError, match="trained with another tokenizer"):
        new(recipe(small, korean, f"model.weights_tokenizer={small.tokenizer}"), small)
    with pytest.raises(
        SettingsError, match=f"the text table only {parity.config().vocab_size} rows"
    ) as caught:
        new(recipe(small, korean, "model.text_rows=original"), small)
    assert "model.text_rows=carried" in caught.value.hint
    with pytest.raises(SettingsError, match="vocab_size is 64010, the text table made of"):
        new(recipe(small, korean, of_recorded(), "model.vocab_size=64010"), small)


def test_a_folder_of_other_weights_is_refused(small: Small, tmp_path: Path) -> None:
    save_file({"encoder.embeddings": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"not a BEiT-3 checkpoint: its weights have a 'embeddings'"):
        new(recipe(small, small.tokenizer, weights=tmp_path), small)


def test_a_swapped_tokenizer_is_noticed(small: Small, korean: Path, tmp_path: Path) -> None:
    """In a step folder that answers, and in one whose weights are taken along."""
    settings = recipe(small, korean, of_recorded())
    model, processor, _ = family.create_model(settings, open_index(small.index).answers())
    step = tmp_path / "step"
    step.mkdir()
    family.write_model_folder(model, processor, step, CheckpointInfo("beit3", "vqa"))
    family.read_model_folder(step, "vqa")
    with pytest.raises(ModelError, match="not the tokenizer this model was trained with"):
        new(recipe(small, korean, of_recorded(), weights=step), small)
    (step / "tokenizer" / "spm.model").write_bytes(small.tokenizer.read_bytes())
    with pytest.raises(ModelError, match=r"spm\.model is not the tokenizer this model was trained with"):
        family.read_model_folder(step, "vqa")
    with pytest.raises(ModelError, match="not the tokenizer this model was trained with"):
        new(recipe(small, korean, weights=step), small)
    about = read_json(step / "config.json")
    assert about.pop("tokenizer_sha256") == processor.tokenizer.sha256
    write_json(step / "config.json", about)  # as folders were written before
    family.read_model_folder(step, "vqa")
