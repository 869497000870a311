"""Every kind of file that kovqa reads: where a small whole one lies, and which commands read it.

A kind names a tree of `base_tree`, whose inputs lie in `in` and whose outputs come into `out`. A command is one
line, run in the folder of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.faults.damaged_sources import ROWS, SOURCES

USUAL_CODES = frozenset({0, 2, 3})


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Args:
        name: of the kind.
        tree: folder of the base that is copied.
        files: patterns of the files in it of which one is damaged.
        commands: those that read it, without `kovqa`.
        exit_codes: with which they may end.
        leaves: patterns of what may stay in `out` after an error: what the same command goes on with.
        also_named: words that name the file where its own name would say less.
        environment: variables of the commands.
        rows: that outputs in `out` have, if it was whole; 0: not counted, for nobody can tell what is gone.
        usual_code: with which the commands end if it was whole.
    """

    name: str
    tree: str
    files: tuple[str, ...]
    commands: tuple[str, ...]
    exit_codes: frozenset[int] = USUAL_CODES
    leaves: tuple[str, ...] = ()
    also_named: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0
    usual_code: int = 0


_BATCH = "--set optim.global_batch=8"
_TRAIN = f"train -n -r tiny -p cpu --data in/색인 --tokenizer in/토큰.model {_BATCH}"
_LINES = ("csv", "tsv", "jsonl")  # cut between two lines, they are whole files of fewer rows
_PARTIAL = ("*.part", "*.part.json", "*.parts/*")
_DOWNLOAD_CODES = frozenset({0, 2, 3, 5})


def _raw_sources() -> list[FileKind]:
    kinds = []
    for source in SOURCES:
        is_table = source.kind == "table"
        root = f"in/원본/표.{source.name}" if is_table else "in/원본"
        index = f"index {source.kind} --root {root} --min-count 1"
        commands = [f"{index} -o out/색인", f"{index} --check", f"{index} -o out/색인 --check-images"]
        files = ("in/원본/표.*",) if is_table else ("in/원본/**/*.json", "in/원본/*.csv")
        rows = ROWS + {"nia": 2, "vqav2": 1, "dacon": 1}.get(source.kind, 0)
        kinds.append(
            FileKind(
                f"raw {source.name}",
                f"raw {source.name}",
                files,
                tuple(commands),
                rows=0 if source.name in _LINES else rows,
                also_named=("/in/원본",),
            )
        )
    return kinds


def _tables() -> list[FileKind]:
    return [
        FileKind(
            f"table {suffix}", "tables", (f"in/표.{suffix}",),
            (
                f"index table --root in/표.{suffix} -o out/색인 --min-count 1",
                f"tokenizer train in/표.{suffix} -o out/새.model --vocab-size 1000",
                f"predict --input in/표.{suffix} --images in/images --model in/모델 -o out/답.jsonl",
                f"predict --input in/표.{suffix} --images in/images --model in/모델 -o out/답.{suffix}",
            ),
            leaves=_PARTIAL, rows=0 if suffix in _LINES else 24,
        )
        for suffix in ("csv", "tsv", "json", "jsonl", "xlsx", "parquet")
    ]  # fmt: skip


def _webdatasets() -> list[FileKind]:
    return [
        FileKind(
            f"webdataset {suffix}", "webdatasets", (f"in/표.{suffix}",),
            (
                f"index table --root in/표.{suffix} -o out/색인 --min-count 1 --check-images",
                f"predict --input in/표.{suffix} --model in/모델 -o out/답.jsonl",
            ),
            leaves=_PARTIAL,
        )
        for suffix in ("tar", "tar.gz")
    ]  # fmt: skip


def _benchmarks() -> list[FileKind]:
    names = {"k-mmbench": "parquet", "kreta": "tsv", "k-viscuit-github": "jsonl", "bok-vqa": "csv"}
    return [
        FileKind(
            f"benchmark {name}", f"benchmark {name}", (f"in/원본/**/*.{suffix}",),
            tuple(
                f"index {name.removesuffix('-github')} --root in/원본 {options}"
                for options in ("-o out/색인", "--check", "-o out/색인 --check-images")
            ),
            also_named=("/in/원본",),
        )
        for name, suffix in names.items()
    ]  # fmt: skip


def _predictions() -> list[FileKind]:
    return [
        FileKind(
            f"predictions {suffix}", "predictions", (f"in/답.{suffix}",),
            (
                f"evaluate in/답.{suffix} --index in/색인/val.jsonl",
                f"evaluate in/답.{suffix} --index in/색인/val.jsonl --report out/쪽.html --log out/글.txt",
                f"vote in/답.{suffix} in/둘째.jsonl -o out/셋째.jsonl",
                f"vote in/둘째.jsonl in/답.{suffix} -o out/셋째.csv",
                f"submit vqav2 --predictions in/답.{suffix} --sample in/색인/val.jsonl -o out/제출.json --fill x",
                f"submit dacon --predictions in/답.{suffix} --sample in/견본.csv -o out/제출.csv --fill x",
            ),
        )
        for suffix in ("jsonl", "csv", "tsv", "json", "xlsx", "parquet")
    ]  # fmt: skip


FILE_KINDS: tuple[FileKind, ...] = (
    *_raw_sources(),
    *_tables(),
    *_webdatasets(),
    FileKind(
        "spoken question", "speech", ("in/질문.wav", "in/받아쓰기/*"),
        ("predict -i in/질문.png --speech in/질문.wav --speech-model in/받아쓰기 --model in/모델 -q",),
        exit_codes=USUAL_CODES | {4},  # a WAV of another kind needs soundfile
        also_named=("in/받아쓰기",),
    ),
    *_benchmarks(),
    *_predictions(),
    FileKind(
        "index", "index", ("in/색인/*",),
        (
            "index -o in/색인 --show 2",
            _TRAIN,
            "evaluate in/답.jsonl --index in/색인/val.jsonl",
            "submit vqav2 --predictions in/답.jsonl --sample in/색인/val.jsonl -o out/제출.json",
            "tokenizer train in/색인 -o out/새.model --vocab-size 1000",
            "index table --root in/표.jsonl --images in/images --answers in/색인 -o out/색인",
            "predict --model in/모델 --input in/색인/val.jsonl -o out/답.jsonl",
        ),
        leaves=_PARTIAL, also_named=("색인",),
    ),
    FileKind(
        "answer list", "index", ("in/색인/answers.txt",),
        ("index table --root in/표.jsonl --images in/images --answers in/색인/answers.txt -o out/색인",),
    ),
    FileKind(
        "partial predictions", "unfinished", ("out/답.jsonl.part", "out/답.jsonl.part.json"),
        ("predict --model in/모델 --input in/색인/val.jsonl -o out/답.jsonl",), leaves=_PARTIAL,
    ),
    FileKind(
        "finished predictions", "finished", ("out/답.jsonl", "out/.답.jsonl.json"),
        (
            "predict --model in/모델 --input in/색인/val.jsonl -o out/답.jsonl",
            "predict --model in/모델 --input in/색인/val.jsonl -o out/답.jsonl --force",
            "evaluate out/답.jsonl --index in/색인/val.jsonl",
            "vote out/답.jsonl out/답.jsonl -o out/셋째.jsonl",
        ),
        leaves=(*_PARTIAL, "답.jsonl", ".답.jsonl.json"), also_named=("답.jsonl",),
    ),
    FileKind(
        "sample csv", "submissions", ("in/견본.csv",),
        (
            "submit dacon --predictions in/답.jsonl --sample in/견본.csv -o out/제출.csv --fill x",
            "submit csv --predictions in/답.jsonl --sample in/견본.csv -o out/제출.csv --fill x",
        ),
    ),
    FileKind(
        "challenge questions", "submissions", ("in/questions.json",),
        ("submit vqav2 --predictions in/답.jsonl --sample in/questions.json -o out/제출.json --fill x",),
    ),
    FileKind(
        "challenge images", "submissions", ("in/images.json",),
        ("submit coco --predictions in/captions.jsonl --sample in/images.json -o out/제출.json --fill x",),
    ),
    FileKind(
        "captions", "submissions", ("in/captions.jsonl",),
        ("submit coco --predictions in/captions.jsonl --sample in/images.json -o out/제출.json --fill x",),
    ),
    *(
        FileKind(
            f"archive {name}", "archives", (f"in/{name}",),
            (f"download --from in/{name} -o out/자료", "download --from in -o out/자료"),
            exit_codes=_DOWNLOAD_CODES, also_named=("나눔.zip",), leaves=("자료", "자료/*"),
        )
        for name in ("자료.zip", "가.tar", "나.tar.gz", "나눔.zip.part0", "나눔.zip.part1", "겹.zip")
    ),
    FileKind(
        "asset by hand", "assets", ("in/저장/*", "in/저장/.cache/huggingface/download/*"),
        ("download hf:somebody/model --from in/저장 -o out/자산 --accept-licence",),
        exit_codes=_DOWNLOAD_CODES, leaves=("자산", "자산/*"), also_named=("저장",),
    ),
    FileKind(
        "asset record", "assets", ("in/home/assets/**/.*", "in/home/assets/**/*"),
        ("download --list", "download --list kowiki --json"),
        exit_codes=_DOWNLOAD_CODES, environment={"KOVQA_HOME": "in/home"},
    ),
    FileKind(
        "tokenizer", "tokenizer", ("in/토큰.model", "in/토큰.model.json"),
        (
            "tokenizer encode --tokenizer in/토큰.model 안녕하세요",
            "tokenizer encode --tokenizer in/토큰.model --pieces --json 안녕하세요",
            "tokenizer inspect in/토큰.model --text in/글.txt",
            "tokenizer inspect in/둘째.model in/토큰.model",
            "tokenizer extend in/토큰.model --with in/다른글.txt -o out/새.model --pieces 5",
            _TRAIN,
        ),
        also_named=("토큰.model",),
    ),
    FileKind(
        "corpus", "corpora", ("in/글.txt",),
        (
            "tokenizer train in/글.txt -o out/새.model --vocab-size 1000",
            "tokenizer inspect in/토큰.model --text in/글.txt",
            "tokenizer extend in/둘째.model --with in/글.txt -o out/새.model --pieces 5",
        ),
    ),
    *(
        FileKind(
            f"dump {name.removeprefix('kowiki-20231101-pages-')}", "corpora", (f"in/{name}",),
            (f"tokenizer train in/{name} -o out/새.model --vocab-size 1000",),
        )
        for name in ("kowiki-20231101-pages-articles.xml", "kowiki-20231101-pages-articles.xml.bz2",
                     "kowiki-20231101-pages-articles-multistream.xml.bz2")
    ),
    FileKind(
        "recipe", "index", ("in/실험.yaml",),
        (
            _TRAIN.replace("tiny", "in/실험.yaml"), "recipes show in/실험.yaml",
            f"{_TRAIN.replace('tiny', 'in/실험.yaml')} -o out/run",
        ),
        exit_codes=frozenset({0, 2, 3, 4}), leaves=("run/*",),
    ),
    FileKind(
        "profile", "index", ("in/기계.yaml",),
        (
            _TRAIN.replace("cpu", "in/기계.yaml"), "profiles show in/기계.yaml", "profiles show in/기계.yaml --json",
            "profiles new out/새.yaml --from in/기계.yaml --set threads=1",
        ),
        exit_codes=frozenset({0, 2, 3, 4}),
    ),
    FileKind(
        "variables' files", "index", ("in/실험.yaml", "in/기계.yaml", "in/색인/*", "in/토큰.model*"),
        (f"train -n {_BATCH}",),
        exit_codes=frozenset({0, 2, 3, 4}), also_named=("색인", "토큰.model"),
        environment={
            "KOVQA_RECIPE": "in/실험.yaml", "KOVQA_PROFILE": "in/기계.yaml", "KOVQA_DATA": "in/색인",
            "KOVQA_TOKENIZER": "in/토큰.model",
        },
    ),
    FileKind(
        "run folder", "run", ("out/run/*", "out/run/logs/*", "out/run/step-*/**/*"),
        (
            "runs list --root out", "runs list --root out --json", "runs show out/run", "runs show out/run --json",
            "runs diff out/run in/다른", "runs rerun out/run -n", "train --resume -o out/run -n",
            "train --resume -o out/run -n --change optim.steps=4",
            "predict --model out/run --input in/표.jsonl --images in/images -o out/답.jsonl",
            "export out/run -o out/내보냄",
        ),
        exit_codes=frozenset({0, 2, 3, 4}), leaves=("run/*", *_PARTIAL), also_named=("out/run", "step-", "run.yaml"),
    ),
    FileKind(
        "step folder", "model", ("in/모델/*", "in/모델/tokenizer/*"),
        (
            "predict --model in/모델 -i in/images/그림.png --question '이것은 뭐예요?'",
            "predict --model in/모델 --input in/표.jsonl --images in/images -o out/답.jsonl",
            "export in/모델 -o out/내보냄",
        ),
        leaves=_PARTIAL, also_named=("in/모델",),
    ),
    FileKind(
        "Hugging Face folder", "vlm", ("in/모델/*",),
        (
            "predict --model in/모델 -i in/images/그림.png --question '이것은 뭐예요?'",
            "train -n -r in/작은.yaml -p cpu --data in/색인",
        ),
        leaves=_PARTIAL, also_named=("in/모델",),
    ),
    FileKind(
        "LLaVA folder", "llava", ("in/llava-tiny/*", "in/vicuna/*", "in/clip/*"),
        ("import in/llava-tiny --base in/vicuna --vision in/clip -o out/모델",),
        also_named=("llava-tiny", "vicuna", "clip"),
    ),
    FileKind(
        "fusion folder", "fusion", ("in/모델/*", "in/모델/**/*"),
        ("predict --model in/모델 -i in/images/그림.png --question '이것은 뭐예요?'", "export in/모델 -o out/내보냄"),
        also_named=("in/모델",),
    ),
    *(
        FileKind(
            f"image {suffix}", "images", (f"in/그림.{suffix}",),
            (
                f"index table --root in/{suffix}.csv --images in -o out/색인 --check-images --allow-left-out",
                f"predict --model in/모델 -i in/그림.{suffix} --question '이것은 뭐예요?'",
            ),
        )
        for suffix in ("png", "jpg", "gif", "bmp", "webp", "tiff", "ppm", "tga", "ico", "jp2", "avif")
    ),
    *(
        FileKind(
            f"key of {name}", "keys", (f"in/home/{file}",), (command,),
            exit_codes=frozenset({2, 3, 5}), usual_code=5, leaves=("자료",),
            environment={"KOVQA_HOME": "in/home", "KOVQA_AIHUB_ENDPOINT": "http://127.0.0.1:9"},
        )
        for name, file, command in (
            ("AI-Hub", "aihub.key", "download aihub-104 --accept-licence -o out/자료"),
            ("a server", "server.key",
             "predict --server http://127.0.0.1:9/v1 --model x -i in/images/그림.png --question 뭐"),
        )
    ),
)  # fmt: skip
