"""Options several commands share, or of which one has many."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

from kovqa_cli import completion

RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        metavar="NAME",
        help="Experiment: a name or a YAML file. [default: kobeit3; of a resumed run: its own]",
        autocompletion=completion.complete_recipe,
        envvar="KOVQA_RECIPE",
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        metavar="NAME",
        help="Machine: a name or a YAML file. [default: what this machine is]",
        autocompletion=completion.complete_profile,
        envvar="KOVQA_PROFILE",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python code that lies in the folder of a vision language model. Read it first.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one setting: optim.lr=1e-5 (recipe), profile.precision=fp32.",
        metavar="KEY=VALUE",
        autocompletion=completion.complete_setting,
    ),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="DIR|OWNER/NAME",
        help="Run folder, step folder or Hugging Face folder, or OWNER/NAME[@REVISION] of the Hugging Face hub, once "
        "`kovqa download hf:OWNER/NAME` has fetched it. [default: the newest finished run here]",
        autocompletion=completion.complete_model,
        envvar="KOVQA_MODEL",
    ),
]
KindOption = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="NAME",
        help="Only questions of this kind (the table's column `kind`). Repeatable; all: every kind.",
    ),
]
ImageFolderOption = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="Folder that the table's image paths start from."),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="What the model computes in: bf16, fp16 or fp32; auto: 16 bits on an NVIDIA GPU, elsewhere as the model "
        "was made.",
    ),
]
LoadOption = Annotated[
    str,
    typer.Option(
        "--load",
        metavar="NAME",
        help="4bit: hold the language model in 4 bits, in less memory (vision language models; "
        "pip install 'kovqa[qlora]'); auto: as it was made.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only the essential value.")]
RunArgument = Annotated[
    str,
    typer.Argument(help="Run: its name below runs/, or a path.", autocompletion=completion.complete_run_name),
]
RunArguments = Annotated[
    list[str] | None,
    typer.Argument(help="Runs: names below runs/, or paths.", autocompletion=completion.complete_run_name),
]
RunFolderOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Run folder. [default: runs/RECIPE-DATE]"),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        "-n",
        help="Check, print the plan and the command; start and write nothing.",
    ),
]
IndexFolderOption = Annotated[
    str | None,
    typer.Option("--data", metavar="DIR", help="Index folder (kovqa index).", envvar="KOVQA_DATA"),
]
TokenizerOption = Annotated[
    str | None,
    typer.Option("--tokenizer", metavar="FILE", help="SentencePiece model.", envvar="KOVQA_TOKENIZER"),
]
RandomInitOption = Annotated[
    bool,
    typer.Option(
        "--random-init",
        help="Fusion: begin with random encoders instead of published ones; no weights are read.",
    ),
]
MicroBatchOption = Annotated[
    str | None,
    typer.Option(
        "--micro-batch",
        metavar="N|auto",
        help="Examples one process holds at once; auto: as many as fit. The global batch stays as it is.",
    ),
]
AllowLeftOutOption = Annotated[
    bool,
    typer.Option(
        "--allow-left-out",
        help="Go on though more than 10 % of the rows are left out for faults, such as a missing image.",
    ),
]
AllowOutsideOption = Annotated[
    bool,
    typer.Option(
        "--allow-outside",
        help="Open images that the table names by `..` or an absolute path, outside of its folder and of --images.",
    ),
]
FillUnreadableOption = Annotated[
    str | None,
    typer.Option(
        "--fill-unreadable",
        metavar="TEXT",
        help="With --input: what rows whose image cannot be read get for an answer; '' is an empty one. "
        "[default: they are left out]",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
ForceAnswersOption = Annotated[
    bool,
    typer.Option("--force", help="Replace -o, though other answers are there: of another model or table."),
]

# ------------------------------------------------------------------------------ of kovqa predict

QuestionImageOption = Annotated[
    Path | None,
    typer.Option(
        "--image",
        "-i",
        metavar="FILE",
        help="Image of the question: a file, an address (asked first), or - for stdin.",
    ),
]
QuestionOption = Annotated[
    str | None, typer.Option("--question", metavar="TEXT", help="Question about the image.")
]
HiddenChatOption = Annotated[bool, typer.Option("--chat", hidden=True, help="Now: kovqa chat.")]
QuestionTableOption = Annotated[
    Path | None,
    typer.Option(
        "--input",
        metavar="FILE",
        help="Many questions: an index's .jsonl, or a table that `kovqa index table` reads.",
    ),
]
PredictionsOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Predictions, with --input: .jsonl, .json, .csv, .tsv, .parquet or .xlsx.",
    ),
]
AnswerProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        metavar="NAME",
        help="Machine whose processes share the table: a name or a YAML file. [default: one process]",
        autocompletion=completion.complete_profile,
    ),
]
QuestionBatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch",
        metavar="N",
        min=1,
        help="Questions answered at once. [default: as a GPU's memory allows; on a CPU 32]",
    ),
]
HiddenVoteOption = Annotated[
    list[Path] | None,
    typer.Option("--vote", metavar="FILE", hidden=True, help="Now: kovqa vote."),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask `kovqa serve`, or a vLLM or SGLang server (…/v1); --model is a name there. Key: KOVQA_SERVER_KEY, and in "
        "KOVQA_SERVER_HOST the host that it is for; OPENAI_API_KEY goes to api.openai.com alone.",
    ),
]
CaptionServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask `kovqa serve` (…/v1); --model is a name there. Key: KOVQA_SERVER_KEY, and in KOVQA_SERVER_HOST the "
        "host that it is for.",
    ),
]
ConcurrencyOption = Annotated[
    int,
    typer.Option(
        "--concurrency", metavar="N", min=1, max=100, help="Requests to a server under way at once."
    ),
]

# ------------------------------------------------------------------------------ of kovqa index

SourceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="SOURCE",
        help="Data set: aihub, aihub101, nia, dacon, vqav2, coco, kvqa, table (any CSV, TSV, JSON lines or JSON), or a "
        "benchmark: k-mmbench, k-seed, k-mmstar, k-dtcbench, k-llava-w, koffvqa, kreta, k-viscuit, bok-vqa.",
        autocompletion=completion.complete_source,
    ),
]
RawDataOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        help="Folder of the raw data; table, a benchmark: also the file.",
        metavar="DIR|FILE",
        envvar="KOVQA_ROOT",
    ),
]
IndexOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Index folder. [default: data/SOURCE, or data/SOURCE-upstream with --as-upstream]",
        metavar="DIR",
    ),
]
RawImagesOption = Annotated[
    Path | None, typer.Option("--images", help="Folder of the images.", metavar="DIR")
]
MinCountOption = Annotated[
    int | None,
    typer.Option(
        "--min-count",
        min=1,
        help="How often a training answer must occur to become a class. "
        "[default: 5, or 1 below 10,000 rows; vqav2: 9, nia: 1]",
        metavar="N",
    ),
]
AnswerClassesOption = Annotated[
    str | None,
    typer.Option(
        "--answers",
        help="How many answers become classes, the most frequent; or a file that lists them, one a line, "
        "answer2label.txt, or the folder of another index. [default: all that --min-count admits]",
        metavar="N|FILE",
    ),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="table: which column is our id, image, question, answer, split, kind, caption, choices, label, unknown, "
        "context or hint. Repeatable.",
        metavar="OURS=THEIRS",
    ),
]
QuestionColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="Which column of the table is our id, image, question, kind, choices, unknown, context or hint. "
        "Repeatable.",
        metavar="OURS=THEIRS",
    ),
]
AllowOutsideTableOption = Annotated[
    bool,
    typer.Option(
        "--allow-outside",
        help="table: images may be named with `..`, and lie anywhere; absolute paths are taken as they are.",
    ),
]
LanguageOption = Annotated[str, typer.Option("--language", help="nia: ko or en.", metavar="NAME")]
IndexCheckOption = Annotated[bool, typer.Option("--check", help="Read only; write nothing.")]
CheckImagesOption = Annotated[
    bool,
    typer.Option(
        "--check-images", help="Open every image, on all cores; rows whose image cannot be read are left out."
    ),
]
ShowExamplesOption = Annotated[
    int | None,
    typer.Option("--show", min=1, help="Show N examples of each split of the index -o.", metavar="N"),
]
IndexUpstreamOption = Annotated[
    bool,
    typer.Option("--as-upstream", help="Write the original project's files: aihub, nia, vqav2, coco, dacon."),
]
UpstreamTokenizerOption = Annotated[
    Path | None,
    typer.Option("--tokenizer", help="SentencePiece model, for --as-upstream.", metavar="FILE"),
]


def training_flags(
    data: str | None, tokenizer: str | None, *, random_init: bool, trust_remote_code: bool
) -> dict[str, str | bool]:
    """The flags of a training that stand for keys of its recipe, where they were given."""
    flags = {
        "data.index": data,
        "model.tokenizer": tokenizer,
        "model.random_init": random_init or None,
        "model.trust_remote_code": trust_remote_code or None,
    }
    return {key: value for key, value in flags.items() if value is not None}


def parse_columns(pairs: Iterable[str] | None) -> dict[str, str]:
    """Our name of a column -> the table's, of every --column OURS=THEIRS.

    Raises:
        SettingsError: not such a pair, or two for one of our names.
    """
    columns: dict[str, str] = {}
    for pair in pairs or ():
        ours, mark, theirs = pair.partition("=")
        if not (ours and mark and theirs):
            raise SettingsError(
                message("index.bad-column-pair", "--column {text}: expected OURS=THEIRS", text=pair),
                message("index.bad-column-pair.hint", "for example --column question=질문"),
            )
        if columns.setdefault(ours, theirs) != theirs:
            raise SettingsError(
                message(
                    "index.column-named-twice", "--column {text}: {ours} is already {theirs}",
                    text=pair, ours=ours, theirs=columns[ours],
                ),
                message("index.column-named-twice.hint", "name one column for each of ours"),
            )  # fmt: skip
    return columns
