"""`--server` against `kovqa serve`: the answers, scores and faults of the same model without a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from kovqa_core.answer.job import AnswerBackend, AnswerJob, AnswerOptions, run_answer_job
from kovqa_core.answer.local import local_backend
from kovqa_core.answer.remote_client import ask_server, server_backend
from kovqa_core.errors import KovqaError, ModelError, SettingsError
from kovqa_core.serve.served_models import load_served_models
from kovqa_core.serve.server import ServeOptions, guarded_app
from PIL import Image

from tests.answer.conftest import AnswerFolder
from tests.conftest import Small
from tests.web.servers import serving

FAMILIES = ("beit3", "fusion", "vlm", "caption")


@dataclass(frozen=True)
class Served:
    """A server of a model of each family, and where these lie."""

    url: str
    folders: dict[str, Path]
    names: dict[str, str]


@pytest.fixture(scope="module")
def served(answer_folder: AnswerFolder) -> Iterator[Served]:
    folders = {name: answer_folder(name) for name in FAMILIES}
    # In 16 bits, a vision language model's own, what else is in a batch would change the last digits.
    options = ServeOptions(answer=AnswerOptions(precision="fp32"))
    models = load_served_models(list(folders.values()), options.answer)
    with serving(guarded_app(models, options, "", lambda *reply: None)) as url:
        yield Served(f"{url}/v1", folders, dict(zip(FAMILIES, models, strict=True)))


@pytest.fixture
def table(small: Small, tmp_path: Path) -> Path:
    """Questions about images of many kinds, a damaged one among them; some with a context and choices."""
    photo = Image.open(next((small.root / "images").glob("*.png"))).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.resize((80, 40)).save(tmp_path / "돌림.jpg", exif=turned)
    photo.convert("CMYK").save(tmp_path / "인쇄.jpg")
    photo.quantize(8).save(tmp_path / "움직임.gif")
    clear = photo.copy()
    clear.putalpha(photo.convert("L"))
    clear.save(tmp_path / "투명.webp", lossless=True)
    photo.save(tmp_path / "그대로.png")
    (tmp_path / "깨짐.jpg").write_bytes((tmp_path / "인쇄.jpg").read_bytes()[:300])
    names = ["돌림.jpg", "인쇄.jpg", "움직임.gif", "투명.webp", "그대로.png", "그대로.png", "깨짐.jpg"]
    rows = [
        {"id": f"Q{n}", "image": name, "question": f"{n}번 그림은 무슨 색인가요?"}
        for n, name in enumerate(names)
    ]
    rows[4] |= {"context": "이 그림은 파랗습니다."}
    rows[5] |= {"choices": "빨강|파랑"}
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), "utf-8")
    return path


def answered(job: AnswerJob, backend: AnswerBackend) -> tuple[list[dict[str, object]], dict[str, str]]:
    done = run_answer_job(job, backend)
    return [json.loads(line) for line in job.output.read_text("utf-8").splitlines()], dict(done.left_out)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_server_answers_as_its_model_does(name: str, served: Served, table: Path) -> None:
    task = "caption" if name == "caption" else "vqa"
    options = AnswerOptions(
        served.folders[name], task, top_k=3 if name in ("beit3", "fusion") else 1, precision="fp32"
    )
    job = AnswerJob(table, table.with_name("here.jsonl"), options, allow_left_out=True, batch=1)
    here = answered(job, local_backend(options))
    there_options = replace(options, model=Path(served.names[name]), precision="auto")
    with server_backend(served.url, there_options, 4) as backend:
        there = answered(replace(job, output=table.with_name("there.jsonl"), options=there_options), backend)
    assert len(here[0]) == 6
    assert "깨짐.jpg cannot be read (it is cut off" in here[1]["Q6"]
    assert there[1] == here[1], "the same fault, with the file's name"
    for mine, theirs in zip(here[0], there[0], strict=True):
        scores = [each.pop("score") for each in (mine, theirs)]
        likeliest = [each.pop("likeliest", []) for each in (mine, theirs)]
        assert mine == theirs
        assert scores[0] == pytest.approx(scores[1], abs=2e-6)
        assert [text for text, _ in likeliest[0]] == [text for text, _ in likeliest[1]]
        assert len(likeliest[0]) == (3 if options.top_k == 3 else 0)


def test_one_question_finds_the_model_by_its_task(served: Served, small: Small) -> None:
    image = next((small.root / "images").glob("*.png"))
    caption = ask_server(served.url, image, "", AnswerOptions(task="caption"))
    assert caption.model == served.names["caption"]
    assert caption.answer.text


@pytest.mark.parametrize(
    ("name", "options", "kind", "said"),
    [
        (None, AnswerOptions(), SettingsError, "serves 3 models: "),
        ("caption", AnswerOptions(), ModelError, "is for caption, not for vqa"),
        ("beit3", AnswerOptions(task="caption"), ModelError, "is for vqa, not for caption"),
        ("vlm", AnswerOptions(top_k=2), SettingsError, "gives one answer, and no list"),
        ("beit3", AnswerOptions(top_k=21), SettingsError, "lists 20 of the likeliest answers at most"),
    ],
)
def test_what_it_does_not_do_is_said_at_once(
    name: str | None, options: AnswerOptions, kind: type[KovqaError], said: str, served: Served, small: Small
) -> None:
    image = next((small.root / "images").glob("*.png"))
    asked = replace(options, model=Path(served.names[name]) if name else None)
    with pytest.raises(kind, match=said):
        ask_server(served.url, image, "무엇?", asked)
