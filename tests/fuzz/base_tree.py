"""A small whole file of every kind that kovqa reads: made once, then copied for each case.

BASE/TREE/in     what commands read
BASE/TREE/out    what an earlier command left, where the kind is such a file
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import shutil
from pathlib import Path

from tests import parity
from tests.conftest import SMALL, sets
from tests.data.test_webdataset import write_tar
from tests.download.sources import tarred, zipped
from tests.faults.damaged_sources import SOURCES, write_source
from tests.speech.test_sound_file import tone, wav
from tests.speech.tiny_models import save_whisper
from tests.tools.benchmark_files import write_benchmark
from tests.tools.forked_commands import Ended, ForkedCommands

_ROWS = 24
_QUESTIONS = ("이것은 뭐예요?", "무슨 색이에요?", "몇 개예요?")
_ANSWERS = ("사과", "빨간색", "두 개")
_TABLE_SUFFIXES = ("csv", "tsv", "json", "xlsx", "parquet")


def make_base(base: Path, commands: ForkedCommands) -> Path:
    """All trees, in an empty folder; a minute at most, most of it a training of two steps."""
    for source in SOURCES:
        root = base / f"raw {source.name}" / "in" / "원본"
        write_source(source, root, source.rows())
    common = base / "index"
    _make_data(common / "in", commands)
    _make_model(base, common, commands)
    _make_tables(base, common, commands)
    _make_webdatasets(base, common)
    _make_speech(base, common)
    _make_benchmarks(base)
    _make_predictions(base, common, commands)
    _make_archives(base / "archives" / "in")
    _make_assets(base / "assets" / "in", commands)
    _make_corpora(base, common)
    _make_other_models(base, common, commands)
    _make_images(base / "images" / "in")
    shutil.copytree(base / "model/in/모델", base / "images/in/모델")
    _make_keys(base / "keys" / "in", commands)
    for tree in base.iterdir():
        (tree / "out").mkdir(exist_ok=True)
    return base


def _run(commands: ForkedCommands, folder: Path, *words: object, code: int = 0, **options: object) -> Ended:
    done = commands.run(words, folder, **options)
    assert done.code == code, f"{words}: {done.code}\n{done.stderr}"
    return done


def _make_data(folder: Path, commands: ForkedCommands) -> None:
    """Images, a table, its index, a tokenizer, a recipe and a profile."""
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (8, 8), (60 * number, 9, 9)).save(folder / "images" / f"장면{number}.png")
    shutil.copy(folder / "images/장면0.png", folder / "images/그림.png")
    rows = [
        {
            "id": str(n), "image": f"장면{n % 4}.png", "question": f"{_QUESTIONS[n % 3]} {n}", "answer": _ANSWERS[n % 3],
            "kind": "색" if n % 2 else "수", "split": "val" if n % 3 == 0 else "train",
        }
        for n in range(_ROWS)
    ]  # fmt: skip
    write_rows(folder / "표.jsonl", rows)
    lines = [
        f"{question} 사진 {n}에 있는 {answer}입니다"
        for n in range(60)
        for question, answer in zip(_QUESTIONS, _ANSWERS, strict=True)
    ]
    (folder / "글.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "다른글.txt").write_text(
        "\n".join(f"구름이 흐르는 하늘 {n}과 바다" for n in range(60)) + "\n", "utf-8"
    )
    _run(
        commands,
        folder,
        "index",
        "table",
        "--root",
        "표.jsonl",
        "--images",
        "images",
        "-o",
        "색인",
        "--min-count",
        1,
    )
    _run(commands, folder, "tokenizer", "train", "글.txt", "-o", "토큰.model", "--vocab-size", 300)
    _run(commands, folder, "tokenizer", "train", "다른글.txt", "-o", "둘째.model", "--vocab-size", 290)
    recipe = _run(commands, folder, "recipes", "show", "tiny").stdout
    (folder / "실험.yaml").write_text(recipe, "utf-8")
    profile = _run(commands, folder, "profiles", "show", "cpu").stdout
    (folder / "기계.yaml").write_text(profile, "utf-8")


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """A table as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _make_model(base: Path, common: Path, commands: ForkedCommands) -> None:
    """A training of a few steps: its run folder, and a step folder alone."""
    run = base / "run"
    shutil.copytree(common, run)
    words = [
        "train",
        "-r",
        "tiny",
        "-p",
        "cpu",
        "--data",
        common / "in/색인",
        "--tokenizer",
        common / "in/토큰.model",
    ]
    words += sets(*SMALL, "optim.steps=2", "eval.every_steps=2")
    _run(commands, run, *words, "-o", run / "out/run", seconds=120)
    shutil.copytree(run / "out/run", run / "in/다른", symlinks=True)
    (run / "in/다른/run.yaml").write_text(
        (run / "out/run/run.yaml").read_text("utf-8").replace("warmup_steps: 2", "warmup_steps: 1"), "utf-8"
    )
    model = base / "model"
    shutil.copytree(common, model)
    shutil.copytree(next((run / "out/run").glob("step-*")), model / "in/모델")
    shutil.copytree(model / "in/모델", common / "in/모델")


def _make_tables(base: Path, common: Path, commands: ForkedCommands) -> None:
    """The table in every format."""
    from kovqa_core.data.write_tables import encode_table

    tables = base / "tables"
    shutil.copytree(common, tables)
    rows = [json.loads(line) for line in (tables / "in/표.jsonl").read_text("utf-8").splitlines()]
    for suffix in _TABLE_SUFFIXES:
        path = tables / "in" / f"표.{suffix}"
        path.write_bytes(encode_table(path, rows))


def _make_webdatasets(base: Path, common: Path) -> None:
    """The table's rows as samples of a tar, plain and packed."""
    webdatasets = base / "webdatasets"
    shutil.copytree(common, webdatasets)
    rows = [json.loads(line) for line in (webdatasets / "in/표.jsonl").read_text("utf-8").splitlines()]
    images = webdatasets / "in/images"
    files = [
        (f"{number:04d}{end}", data)
        for number, row in enumerate(rows)
        for end, data in (
            (Path(row["image"]).suffix, (images / row["image"]).read_bytes()),
            (".json", json.dumps({**row, "image": None}, ensure_ascii=False).encode()),
        )
    ]
    write_tar(webdatasets / "in/표.tar", files)
    write_tar(webdatasets / "in/표.tar.gz", files, mode="w:gz")


def _make_speech(base: Path, common: Path) -> None:
    """A spoken question, and what writes it down."""
    speech = base / "speech"
    shutil.copytree(common, speech)
    (speech / "in/질문.wav").write_bytes(wav(tone(440)))
    shutil.copyfile(next((speech / "in/images").glob("*.png")), speech / "in/질문.png")
    save_whisper(speech / "in/받아쓰기")


def _make_benchmarks(base: Path) -> None:
    """One of each layout, under the name of its set."""
    for name in ("k-mmbench", "kreta", "k-viscuit-github", "bok-vqa"):
        write_benchmark(name, base / f"benchmark {name}" / "in" / "원본")


def _make_predictions(base: Path, common: Path, commands: ForkedCommands) -> None:
    """Predictions in every format, finished and unfinished, and what challenges hand out."""
    from kovqa_core.data.write_tables import encode_table

    finished, predictions = base / "finished", base / "predictions"
    shutil.copytree(common, finished)
    words = ["predict", "--model", "in/모델", "--input", "in/색인/val.jsonl", "-o", "out/답.jsonl"]
    (finished / "out").mkdir()
    done = _run(commands, finished, *words)
    last = next(n for n, line in enumerate(done.operations, 1) if "/..답.jsonl.json" in line)
    unfinished = base / "unfinished"
    shutil.copytree(common, unfinished)
    _run(commands, unfinished, *words, kill_at=last, code=-9)
    assert (unfinished / "out/답.jsonl.part.json").exists(), done.operations

    shutil.copytree(common, predictions)
    shutil.copy(finished / "out/답.jsonl", predictions / "in/답.jsonl")
    shutil.copy(finished / "out/답.jsonl", common / "in/답.jsonl")
    rows = [json.loads(line) for line in (predictions / "in/답.jsonl").read_text("utf-8").splitlines()]
    write_rows(predictions / "in/둘째.jsonl", rows)
    for suffix in _TABLE_SUFFIXES:
        path = predictions / "in" / f"답.{suffix}"
        path.write_bytes(encode_table(path, rows))
    sample = "ID,answer\n" + "".join(f"{row['id']},답\n" for row in rows)
    (predictions / "in/견본.csv").write_text(sample, "utf-8")

    submissions = base / "submissions"
    shutil.copytree(predictions, submissions)
    questions = [{"question_id": int(row["id"]), "image_id": 1, "question": "뭐?"} for row in rows]
    _write_json(submissions / "in/questions.json", {"questions": questions})
    _write_json(
        submissions / "in/images.json", {"images": [{"id": int(row["id"]), "file_name": "a"} for row in rows]}
    )
    write_rows(submissions / "in/captions.jsonl", [{"id": row["id"], "caption": "사과"} for row in rows])


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), "utf-8")


def _make_archives(folder: Path) -> None:
    folder.mkdir(parents=True)
    files = {"동물/1.json": b"[]" * 50, "동물/사진.jpg": bytes(range(256)) * 4}
    (folder / "자료.zip").write_bytes(zipped(files))
    (folder / "나.tar.gz").write_bytes(tarred(files))
    (folder / "겹.zip").write_bytes(zipped({"안.zip": zipped(files), "밖.tar.gz": tarred(files)}))
    whole = zipped(files)
    for number, start in enumerate(range(0, len(whole), 700)):
        (folder / f"나눔.zip.part{number}").write_bytes(whole[start : start + 700])
    (folder / "가.tar").write_bytes(gzip.decompress(tarred(files)))


def _make_assets(folder: Path, commands: ForkedCommands) -> None:
    """A repository of the hub as `hf download --local-dir` leaves it, and a home that has an asset."""
    cards = folder / "저장/.cache/huggingface/download"
    cards.mkdir(parents=True)
    files = {
        "config.json": b'{"model_type": "llava"}', "tokenizer.json": b"{}",
        "model.safetensors": (8).to_bytes(8, "little") + b"{}      ",
    }  # fmt: skip
    for name, data in files.items():
        (folder / "저장" / name).write_bytes(data)
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # the hub's checksum of a small file
        (cards / f"{name}.metadata").write_text(f"{'a' * 40}\n{blob}\n1700000000.0\n", "utf-8")
    dump = folder / "kowiki-20231101-pages-articles.xml.bz2"
    dump.write_bytes(bz2.compress(_dump_text().encode()))
    home = {"KOVQA_HOME": str(folder / "home")}
    _run(commands, folder, "download", "kowiki", "--from", dump, "--accept-licence", environment=home)


def _dump_text() -> str:
    from tests.tokenizer.test_wikipedia import PAGES, dump

    return "".join(dump(PAGES[:40]))


def _make_corpora(base: Path, common: Path) -> None:
    from tests.tokenizer.test_wikipedia import PAGES, dump, multistream, plain, single

    folder = base / "corpora" / "in"
    shutil.copytree(common / "in", folder)
    for pack in (plain, single, multistream):
        pack(folder, dump(PAGES[:40]))
    shutil.copytree(common / "in", base / "tokenizer" / "in")


def _make_other_models(base: Path, common: Path, commands: ForkedCommands) -> None:
    """Folders of the other families: Hugging Face's, LLaVA's, and one imported from a VQA_NIA checkpoint."""
    from tests.models.vlm.tiny_vlm import write_tiny_vlm

    vlm, llava, fusion = base / "vlm/in", base / "llava/in", base / "fusion/in"
    for folder in (vlm, llava, fusion):
        shutil.copytree(common / "in", folder)
        shutil.rmtree(folder / "모델")
    write_tiny_vlm("llava", vlm / "모델", tuple(f"{q} {a}" for q in _QUESTIONS for a in _ANSWERS))
    recipe = _run(commands, vlm, "recipes", "show", "tiny-vlm").stdout
    (vlm / "작은.yaml").write_text(recipe.replace("base:", "base: in/모델 #"), "utf-8")
    for name, place in (
        ("llava-tiny", "train_im_start_end/llava-tiny"),
        ("vicuna", "base/vicuna-tiny"),
        ("clip", "base/openai/clip-tiny-patch14"),
    ):
        shutil.copytree(parity.path(place, "llava"), llava / name)
    _make_fusion(fusion, commands)


def _make_fusion(folder: Path, commands: ForkedCommands) -> None:
    import sentencepiece

    about = parity.json_of("config.json", "vqa_nia")
    rows = about["text"]["vocab_size"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["무엇이 보이나요?", "이것은 무슨 색인가요?", "사진에 몇 개 있나요?"]),
        model_prefix=str(folder / "spm"), vocab_size=rows - 2, minloglevel=2,
        user_defined_symbols=[f"[{i}]" for i in range(rows - 25)],
    )  # fmt: skip
    answers = "".join(f"답 {i}\n" for i in range(about["n_answers"]))
    (folder / "answers.txt").write_text(answers, "utf-8")
    shutil.copy(parity.path(about["pickle"]["file"], "vqa_nia"), folder / "infer.pt")
    heads = f"model.question_config.num_attention_heads={about['text']['num_attention_heads']}"
    words = ["import", "infer.pt", "--labels", "answers.txt", "--tokenizer", "spm.model", "-o", "모델"]
    _run(commands, folder, *words, *sets(heads, f"model.image_size={about['image_size_hw'][0]}"))


def _make_images(folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    picture = Image.new("RGB", (16, 16), (9, 200, 9))
    for suffix in ("png", "jpg", "gif", "bmp", "webp", "tiff", "ppm", "tga", "ico", "jp2", "avif"):
        picture.save(folder / f"그림.{suffix}")
        (folder / f"{suffix}.csv").write_text(f"id,image,question,answer\n1,그림.{suffix},뭐?,답\n", "utf-8")


def _make_keys(folder: Path, commands: ForkedCommands) -> None:
    from PIL import Image

    (folder / "home").mkdir(parents=True)
    (folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "images/그림.png")
    for name in ("aihub.key", "server.key"):
        (folder / "home" / name).write_text("abc-123\n", "utf-8")
        (folder / "home" / name).chmod(0o600)
    words = ["download", "aihub-104", "--accept-licence", "-o", folder / "data"]
    environment = {
        "KOVQA_HOME": "home",
        "KOVQA_AIHUB_ENDPOINT": "http://127.0.0.1:9",
        "KOVQA_RETRY_SECONDS": "0",
    }
    _run(commands, folder, *words, code=5, environment=environment)  # the terms are accepted from here on
    shutil.rmtree(folder / "data", ignore_errors=True)
