"""kovqa caption: a sentence about one image, or about many."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

from kovqa_cli import decoding_options, options
from kovqa_cli.commands.predict import (
    answer_question,
    answer_table,
    refuse_outside_to_server,
    refuse_with_server,
    require_table,
    require_table_of_images,
)


def caption(
    *,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", "-i", metavar="FILE", help="Image: a file, an address (asked first), or - for stdin."
        ),
    ] = None,
    input: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Many images: a folder, an index's .jsonl, or a table that `kovqa index table` reads.",
        ),
    ] = None,
    images: options.ImageFolderOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Captions, with --input: .jsonl, .json, .csv, .tsv, .parquet or .xlsx.",
        ),
    ] = None,
    column: options.QuestionColumnOption = None,
    model: options.ModelOption = None,
    beams: Annotated[
        int | None,
        typer.Option(
            "--beams", metavar="N", min=1, help="Captions followed at once; 1: greedy. [default: the model's]"
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            metavar="N",
            min=1,
            help="Images at once. [default: as a GPU's memory allows; on a CPU 16]",
        ),
    ] = None,
    precision: options.PrecisionOption = "auto",
    load: options.LoadOption = "auto",
    instruction: Annotated[
        str | None,
        typer.Option(
            "--instruction",
            metavar="TEXT",
            help="How a chat model is asked for a caption: ko or en for a sentence in that language, or any text. "
            "[default: ko]",
        ),
    ] = None,
    max_new_tokens: decoding_options.MaxNewTokensOption = None,
    trust_remote_code: options.TrustRemoteCode = False,
    server: options.CaptionServerOption = None,
    concurrency: options.ConcurrencyOption = 16,
    allow_left_out: options.AllowLeftOutOption = False,
    allow_outside: options.AllowOutsideOption = False,
    fill_unreadable: options.FillUnreadableOption = None,
    force: options.ForceAnswersOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Describe one image, or every image of a folder or table."""
    from kovqa_cli.question_mistakes import require_one_mode

    require_one_mode("caption", image, None, input, output)
    if (
        (image is None) == (input is None)
        or (input is None) != (output is None)
        or ((force or column) and not output)
    ):
        raise SettingsError(
            message("caption.one-mode", "give --image, or --input and --output"),
            message("caption.one-mode.hint", "kovqa caption -i x.png"),
        )
    from kovqa_core.answer.job import AnswerJob, AnswerOptions
    from kovqa_core.models.load_form import require_load_form
    from kovqa_core.models.precision import require_precision

    from kovqa_cli.output.answers import print_answer, print_predictions

    answer_options = AnswerOptions(
        model, "caption", num_beams=beams, precision=require_precision(precision), load=require_load_form(load),
        instruction=instruction, max_new_tokens=max_new_tokens, trust_remote_code=trust_remote_code,
    )  # fmt: skip
    if server:
        refuse_with_server(
            {
                "--beams": beams is not None,
                "--precision": precision != "auto",
                "--load": load != "auto",
                "--instruction or --max-new-tokens": instruction is not None or bool(max_new_tokens),
                "--trust-remote-code": trust_remote_code,
            }
        )
        refuse_outside_to_server(allow_outside=allow_outside)
    if image is not None:
        require_table(fill_unreadable)
        require_table_of_images(allow_outside=allow_outside)
        caption = answer_question(image, "", answer_options, server, quiet=quiet)
        print_answer(caption, as_json=json, quiet=quiet, field="caption")
    elif input is not None and output is not None:
        job = AnswerJob(
            input, output, answer_options, images, batch=batch, columns=options.parse_columns(column),
            allow_left_out=allow_left_out, fill_unreadable=fill_unreadable, force=force,
            allow_outside=allow_outside,
        )  # fmt: skip
        table = answer_table(job, None, server, concurrency, quiet=quiet or json)
        print_predictions(table, as_json=json, quiet=quiet, captions=True)
