"""kovqa explain: where an answer comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

from kovqa_cli import completion, options


def explain(
    *,
    image: Annotated[Path, typer.Option("--image", "-i", metavar="FILE", help="Image.")],
    question: Annotated[
        str | None,
        typer.Option("--question", metavar="TEXT", help="Question about the image. [default: its caption]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="PNG: the image, and what matters in it."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            help="occlusion: what the answer loses where the image is covered; rollout: where attention goes, BEiT-3 "
            "alone; auto: occlusion.",
            autocompletion=completion.complete_explain_method,
        ),
    ] = "auto",
    model: options.ModelOption = None,
    load: options.LoadOption = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Where in the image, and in the question, an answer comes from."""
    from kovqa_core.answer.ask_model import ImageQuestion
    from kovqa_core.answer.job import AnswerOptions, require_question
    from kovqa_core.answer.local import load_model, warn_of_unread_texts
    from kovqa_core.explain import require_method
    from kovqa_core.explain.draw_heat import require_png_output, write_explanation_card
    from kovqa_core.explain.explanation import explain_answer

    from kovqa_cli.output.answers import print_cpu_warning
    from kovqa_cli.output.explain import print_explanation
    from kovqa_cli.question_mistakes import require_image_file

    require_method(method)
    require_image_file(image)
    if question is not None:
        require_question(question)
    if output is not None:
        require_png_output(output, image)
    elif question is None and not json:
        raise SettingsError(
            message("explain.nothing-to-show", "a caption has no words of a question to print"),
            message("explain.nothing-to-show.hint", "write the image with -o heat.png, or print --json"),
        )
    print_cpu_warning()
    task = "caption" if question is None else "vqa"
    loaded = load_model(AnswerOptions(model, task, load=load, trust_remote_code=trust_remote_code))
    explanation = explain_answer(loaded, image, question or "", method=method)
    warn_of_unread_texts(loaded, [ImageQuestion(image, question or "").to_example()])
    if output is not None:
        write_explanation_card(explanation, image, output)
    print_explanation(explanation, loaded, output, as_json=json, quiet=quiet)
