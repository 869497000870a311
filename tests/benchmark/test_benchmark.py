"""kovqa benchmark: models times sets, each row answered once, whatever ends it."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from kovqa_core.answer.job import AnswerBackend, AnswerOptions
from kovqa_core.answer.partial_file import RowFault
from kovqa_core.benchmark import run_benchmark as engine
from kovqa_core.benchmark.model_labels import label_models
from kovqa_core.benchmark.run_benchmark import BenchmarkOptions, OpenBackend, leave_out_judged, run_benchmark
from kovqa_core.benchmark.set_indexes import SetIndex, find_set_indexes
from kovqa_core.benchmark.table import SetScore, result_notes, table_cells
from kovqa_core.data.circular_rows import circular_rows
from kovqa_core.data.example import Answer, Example
from kovqa_core.data.question_prompts import no_instruction_hint
from kovqa_core.errors import AssetError, DataError, ModelError, SettingsError
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import IndexSplit
from kovqa_core.judge.judge_answers import JudgedAnswers, JudgedRow, JudgeOptions
from kovqa_core.judge.judge_prompts import Verdict
from typer.testing import CliRunner

from kovqa_cli.completion import complete_benchmark_sets
from kovqa_cli.main import app
from tests.answer.server import MODEL, Vllm, running
from tests.tools.benchmark_files import QUESTION, SQUARES, picture, write_benchmark
from tests.tools.benchmark_index import write_benchmark_index

SETS = ("k-mmbench", "k-dtcbench")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Indexes of two sets with five questions each, and of one that a judge scores."""
    images, folder = tmp_path / "그림", tmp_path / "data"
    images.mkdir()
    rows = []
    for number, square in enumerate(SQUARES):
        (images / f"{number}.png").write_bytes(picture(square.colour))
        rows.append(
            Example(
                str(number), f"{number}.png", QUESTION, {square.choices[square.answer]: 1.0}, square.category,
                choices=square.choices,
            )
        )  # fmt: skip
    turns = [turn for row in rows for turn in circular_rows(row)]
    for name, split in (("k-mmbench", turns), ("k-dtcbench", rows), ("koffvqa", rows)):
        write_benchmark_index(folder / name, name, split, images)
    return folder


class FakeModels:
    """Models that answer by a rule; they count what they are asked.

    Attributes:
        asked: (model, id, set) -> times.
        weights: of each model, which its fingerprint has.
        stop_after: rows after which the process ends like a killed one; 0: never.
        broken: models that cannot be loaded.
    """

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.weights: dict[str, str] = {}
        self.stop_after = 0
        self.broken: set[str] = set()
        self.loads: Counter[str] = Counter()

    def backend_opener(self, options: BenchmarkOptions, on_progress: object) -> OpenBackend:
        return self.open_backend

    @contextlib.contextmanager
    def open_backend(self, answering: AnswerOptions) -> Iterator[AnswerBackend]:
        assert answering.model is not None
        name = answering.model.name
        self.loads[name] += 1
        if name in self.broken:
            raise ModelError(f"{name} is broken", "mend it")
        asked = {"instruction": answering.instruction, "max_tokens": answering.max_new_tokens}
        fingerprint = {
            **asked, "model": name, "weights": self.weights.get(name, "1"), "decoding": answering.decoding.json_fields(),
        }  # fmt: skip
        yield AnswerBackend(answering.model, fingerprint, partial(self.answer, name))

    def answer(self, name: str, job: object, rows: list, on_progress: object) -> Iterator:  # type: ignore[type-arg]
        for row in rows:
            if self.stop_after and sum(self.asked.values()) >= self.stop_after:
                raise KeyboardInterrupt
            if not (job.image_folder / row.example.image).exists():  # type: ignore[attr-defined]
                yield row, RowFault("its image is missing")
                continue
            self.asked[name, row.example.id, job.table.parent.name] += 1  # type: ignore[attr-defined]
            square = SQUARES[int(row.example.id.partition("/")[0])]  # rows to answer hold no answers
            right = square.choices[square.answer]
            # "good" knows all but one question, "first" takes the first choice.
            text = row.example.choices[0] if name == "first" or row.example.id == "1/3" else right
            yield row, Answer(text, 0.5)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> FakeModels:
    fake = FakeModels()
    monkeypatch.setattr(engine, "_backend_opener", fake.backend_opener)
    return fake


def options(*names: str, **changed: bool) -> BenchmarkOptions:
    return BenchmarkOptions([Path(name) for name in names], **changed)  # type: ignore[arg-type]


def choose(data: Path) -> list[SetIndex]:
    return find_set_indexes(data, SETS)


def test_two_models_on_two_sets_beside_hand_computed_scores(
    data: Path, models: FakeModels, tmp_path: Path
) -> None:
    table = run_benchmark(options("good", "first"), choose(data), tmp_path / "out")
    scores = {
        (result.model, result.set): result.scores.total.score
        for result in table.results
        if isinstance(result, SetScore)
    }
    # The answers of the five squares are A, B, C, D, B: of "first" one of five, and no question in all turns.
    assert scores == {
        ("good", "k-mmbench"): 0.8, ("good", "k-dtcbench"): 1, ("first", "k-mmbench"): 0, ("first", "k-dtcbench"): 0.2,
    }  # fmt: skip
    written = json.loads((tmp_path / "out" / "benchmark.json").read_text("utf-8"))
    assert {"kovqa", "torch", "transformers"} <= written["versions"].keys()
    first = written["results"][0]
    assert (first["rows"], first["questions"], first["protocol"], first["answered_by"]) == (
        20, 5, "circular", "letter",
    )  # fmt: skip
    assert (first["vanilla"]["score"], first["unusable"], first["identity"]["weights"]) == (1, 0, "1")
    markdown = (tmp_path / "out" / "benchmark.md").read_text("utf-8")
    assert "| k-mmbench | good | 80.0% | 37.6% – 96.4% | 5 | 0 | letters | circular |" in markdown
    assert set(models.asked.values()) == {1}
    assert len(models.asked) == 2 * (20 + 5)


def test_a_killed_benchmark_goes_on_and_answers_nothing_twice(
    data: Path, models: FakeModels, tmp_path: Path
) -> None:
    run = partial(run_benchmark, options("good", "first"), choose(data), tmp_path / "out")
    models.stop_after = 23
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not (tmp_path / "out" / "benchmark.json").exists(), "a table of half of it"
    models.stop_after = 0
    table = run()
    assert not table.failures
    assert set(models.asked.values()) == {1}
    assert len(models.asked) == 50
    finished = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    run()
    assert set(models.asked.values()) == {1}, "all was there"
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == finished


def test_another_model_under_the_same_name_is_noticed(data: Path, models: FakeModels, tmp_path: Path) -> None:
    run_benchmark(options("good", "first"), choose(data), tmp_path / "out")
    models.weights["good"] = "2"
    table = run_benchmark(options("good", "first"), choose(data), tmp_path / "out")
    assert [(failure.model, failure.set, type(failure.error)) for failure in table.failures] == [
        ("good", name, SettingsError) for name in SETS
    ]
    assert table.failures[0].error.exit_code == 2
    assert set(models.asked.values()) == {1}
    assert not run_benchmark(options("good", force=True), choose(data), tmp_path / "out").failures
    assert models.asked["good", "0", "k-dtcbench"] == 2


def test_one_model_fails_and_the_others_go_on(data: Path, models: FakeModels, tmp_path: Path) -> None:
    models.broken = {"bad"}
    table = run_benchmark(options("bad", "good"), choose(data), tmp_path / "out")
    assert [(failure.model, failure.set) for failure in table.failures] == [("bad", name) for name in SETS]
    assert models.loads["bad"] == 1, "what cannot be loaded is not tried again"
    assert [result.model for result in table.results if isinstance(result, SetScore)] == ["good", "good"]
    written = json.loads((tmp_path / "out" / "benchmark.json").read_text("utf-8"))
    assert written["results"][0] == {"model": "bad", "set": "k-mmbench", "error": "bad is broken"}
    assert "| k-dtcbench | bad | failed |" in (tmp_path / "out" / "benchmark.md").read_text("utf-8")
    words = ["benchmark", "--sets", ",".join(SETS), "--data", str(data), "-o", str(tmp_path / "out"), "-q"]
    done = CliRunner().invoke(app, [*words, "--model", "bad", "--model", "good"])
    assert done.exit_code == ModelError.exit_code
    assert done.stderr.count("bad is broken → mend it") == 2
    assert done.stdout.strip() == str(tmp_path / "out" / "benchmark.json")


def test_an_image_that_cannot_be_read_is_wrong_and_said(
    data: Path, models: FakeModels, tmp_path: Path
) -> None:
    (data.parent / "그림" / "1.png").unlink()
    table = run_benchmark(options("good"), choose(data), tmp_path / "out")
    assert [type(failure.error) for failure in table.failures] == [DataError, DataError], (
        "a fifth is too many"
    )
    table = run_benchmark(options("good", allow_left_out=True), choose(data), tmp_path / "out")
    one = [result for result in table.results if isinstance(result, SetScore)]
    assert [(each.scores.total.score, each.unreadable, each.unusable) for each in one] == [
        (0.8, 4, 4), (0.8, 1, 1),
    ]  # fmt: skip


def test_sets_that_are_not_here_are_named_with_what_brings_them(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no index of k-seed, kreta") as missing:
        find_set_indexes(data, ["k-seed", "k-mmbench", "kreta"])
    assert missing.value.hint.startswith("kovqa download k-seed kreta && kovqa index k-seed --root ")
    assert missing.value.exit_code == 3
    assert [index.benchmark.name for index in find_set_indexes(data, ["all"])] == [*SETS, "koffvqa"]
    with pytest.raises(DataError, match="has no index of k-seed"):
        find_set_indexes(data, ["all", "k-seed"])
    with pytest.raises(SettingsError, match="unknown set 'k-mmbanch'; did you mean k-mmbench"):
        find_set_indexes(data, ["k-mmbanch"])
    with pytest.raises(DataError, match="no index of a published set"):
        find_set_indexes(tmp_path / "nothing", ["all"])
    with pytest.raises(SettingsError, match="names no set"):
        find_set_indexes(data, [" "])
    (data / "k-seed").symlink_to(data / "koffvqa")
    with pytest.raises(DataError, match="not an index of k-seed, but of koffvqa"):
        find_set_indexes(data, ["k-seed"])


def test_judged_sets_are_left_out_without_a_judge(data: Path) -> None:
    kept, judged = leave_out_judged(find_set_indexes(data, ["all"]))
    assert ([each.benchmark.name for each in kept], [each.benchmark.name for each in judged]) == (
        [*SETS], ["koffvqa"],
    )  # fmt: skip
    with pytest.raises(SettingsError, match="koffvqa: a judge scores") as refused:
        leave_out_judged(judged)
    assert "--judge URL" in refused.value.hint


def test_a_judge_scores_open_answers(
    data: Path, models: FakeModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven points of ten for each; the model may write long answers, and is asked for none that is short."""
    asked = []

    def judge(predictions: Path, split: Path, options: JudgeOptions, on_progress: object) -> JudgedAnswers:
        asked.append(options.url)
        rows = [JudgedRow(example, Verdict(7.0), "") for example in IndexSplit(split)]
        rows = [*rows, *rows, JudgedRow(Example("other", "0.png", QUESTION), None, "it said nothing")]
        return JudgedAnswers("심판", "criteria-judge", False, rows, len(rows))

    monkeypatch.setattr(engine, "judge_predictions", judge)
    sets = find_set_indexes(data, ["koffvqa"])
    table = run_benchmark(replace(options("good"), judge=JudgeOptions("http://x/v1")), sets, tmp_path / "out")
    (result,) = table.results
    assert isinstance(result, SetScore), result
    assert (result.scores.total.score, result.judge, result.answered_by) == (
        pytest.approx(0.7),
        "심판",
        "written",
    )
    assert asked == ["http://x/v1"]
    assert any("심판 gave no verdict on 1 questions" in note for note in result_notes(table))
    assert (result.identity["instruction"], result.identity["max_tokens"]) == ("none", 1024)
    assert table_cells(result)[-1] == "criteria-judge, 심판"


def test_a_judge_out_of_reach_costs_its_own_sets_alone(
    data: Path, models: FakeModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(predictions: Path, split: Path, options: JudgeOptions, on_progress: object) -> JudgedAnswers:
        raise AssetError("nobody there")

    monkeypatch.setattr(engine, "judge_predictions", judge)
    sets = find_set_indexes(data, ["koffvqa", "k-dtcbench"])
    table = run_benchmark(replace(options("good"), judge=JudgeOptions("http://x/v1")), sets, tmp_path / "out")
    assert [(failure.set, str(failure.error)) for failure in table.failures] == [("koffvqa", "nobody there")]


def test_labels_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a/run/step-00000010", "b/run/step-00000010"):
        (tmp_path / folder).mkdir(parents=True)
    paths = [Path("a/run"), Path("b/run"), Path("a/run/step-00000010"), Path("Qwen/Qwen3-VL-4B@main"), None]
    assert label_models(paths, served=False) == [
        "a--run", "b--run", "run--step-00000010", "Qwen--Qwen3-VL-4B@main", "newest-run",
    ]  # fmt: skip
    assert label_models([Path("Qwen/A"), None], served=True) == ["Qwen--A--served", "served"]
    for twice in ([Path("a/run"), tmp_path / "a/run"], [None, None], [Path("no/one"), Path("no/one")]):
        with pytest.raises(SettingsError, match="is there twice"):
            label_models(twice, served=False)


@pytest.fixture
def server() -> Iterator[Vllm]:
    with running() as vllm:
        yield vllm


def test_a_model_without_instructions_is_not_told_to_leave_one_out(
    data: Path, models: FakeModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instruction of a judged set is ours."""

    def open_backend(answering: AnswerOptions) -> contextlib.AbstractContextManager[AnswerBackend]:
        raise SettingsError("takes no instruction", no_instruction_hint())

    monkeypatch.setattr(models, "open_backend", open_backend)
    sets = find_set_indexes(data, ["koffvqa", "k-dtcbench"])
    table = run_benchmark(replace(options("good"), judge=JudgeOptions("http://x/v1")), sets, tmp_path / "out")
    hints = [str(failure.error.hint) for failure in table.failures]
    assert "leave it out of --sets" in hints[0] and hints[1] == no_instruction_hint()


def test_a_model_that_cannot_choose_still_writes(
    data: Path, models: FakeModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model behind `kovqa serve` may not be shown choices: that costs the sets with choices alone."""

    write = models.open_backend

    def open_backend(answering: AnswerOptions) -> contextlib.AbstractContextManager[AnswerBackend]:
        if answering.decoding.choices:
            raise ModelError("it is not shown choices")
        return write(answering)

    def no_judge(*_: object, **__: object) -> None:
        raise AssetError("no judge")

    monkeypatch.setattr(models, "open_backend", open_backend)
    monkeypatch.setattr(engine, "judge_predictions", no_judge)
    sets = find_set_indexes(data, [*SETS, "koffvqa"])
    table = run_benchmark(replace(options("good"), judge=JudgeOptions("http://x/v1")), sets, tmp_path / "out")
    assert [str(failure.error) for failure in table.failures] == [
        *["it is not shown choices"] * 2,
        "no judge",
    ]


def test_a_server_is_asked_for_letters_and_its_words_are_read(
    data: Path, server: Vllm, tmp_path: Path
) -> None:
    """It always writes the same: right are the questions of which that is the letter."""
    server.texts[QUESTION] = ("B입니다", "stop")
    words = [
        "benchmark",
        "--sets",
        "all",
        "--data",
        str(data),
        "-o",
        str(tmp_path / "out"),
        "--server",
        server.url,
    ]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.stderr
    assert "koffvqa is left out" in done.stderr and "sets in " in done.stderr
    found = {result["set"]: result for result in json.loads(done.stdout)["results"]}
    assert found["k-mmbench"]["vanilla"]["score"] == pytest.approx(2 / 5)
    # Only the first letter counts there, and K-DTCBench's answers begin with B twice.
    assert (found["k-dtcbench"]["score"], found["k-dtcbench"]["answered_by"]) == (0.4, "written")
    assert (found["k-dtcbench"]["model"], found["k-dtcbench"]["identity"]["served"]) == ("served", MODEL)
    texts = {body["messages"][0]["content"][1]["text"] for body in server.bodies}
    assert f"{QUESTION}\nA. 빨강\nB. 파랑\nC. 초록\nD. 노랑\n선택지의 글자로만 답하세요." in texts
    assert all("A. " in text for text in texts)
    assert len(server.bodies) == 25
    assert CliRunner().invoke(app, [*words, "--model", "없는 모델"]).exit_code != 0
    server.texts[QUESTION] = ("모르겠습니다", "stop")
    other = CliRunner().invoke(app, [*words[:-4], "-o", str(tmp_path / "other"), *words[-2:]])
    assert "0.0%" in other.stdout
    assert (
        json.loads((tmp_path / "other" / "benchmark.json").read_text("utf-8"))["results"][0]["unusable"] == 20
    )


def test_completion_completes_the_last_set() -> None:
    assert complete_benchmark_sets("k-seed,k-mm") == ["k-seed,k-mmbench", "k-seed,k-mmstar"]
    assert "all" in complete_benchmark_sets("")


def test_what_an_index_knows_of_its_data_stands_below_the_table(models: FakeModels, tmp_path: Path) -> None:
    """A score on half a set, or with rows left out, is no score on the set."""
    root = write_benchmark("k-mmstar", tmp_path / "raw", [*SQUARES[:4], SQUARES[4]._replace(answer=3)])
    (file,) = root.rglob("*.parquet")
    rows = pyarrow.parquet.read_table(file).to_pylist()
    rows[3]["answer"] = ""
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    build_index("k-mmstar", root, None, tmp_path / "data" / "k-mmstar")
    chosen = find_set_indexes(tmp_path / "data", ["k-mmstar"])
    size, left_out = chosen[0].notes
    assert "K-MMStar: 5 questions, 1,500 are published" in size
    assert left_out == "K-MMStar: 1 of 5 rows (20.0%) are left out"
    run_benchmark(options("good"), chosen, tmp_path / "out")
    markdown = (tmp_path / "out" / "benchmark.md").read_text("utf-8")
    assert size in markdown and left_out in markdown
    written = json.loads((tmp_path / "out" / "benchmark.json").read_text("utf-8"))
    assert written["results"][0]["data_notes"] == [size, left_out]
