"""kovqa predict: the answer to one question, or to every row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

from kovqa_cli import decoding_options, options, speech_options
from kovqa_cli.commands.chat import run_chat
from kovqa_cli.commands.vote import run_vote

if TYPE_CHECKING:
    from kovqa_core.answer.job import AnsweredTable, AnswerJob, AnswerOptions, ModelAnswer


def predict(
    *,
    image: options.QuestionImageOption = None,
    question: options.QuestionOption = None,
    speech: speech_options.SpeechOption = None,
    speech_model: speech_options.SpeechModelOption = None,
    speak: speech_options.SpeakOption = None,
    speak_model: speech_options.SpeakModelOption = None,
    chat: options.HiddenChatOption = False,
    input: options.QuestionTableOption = None,
    images: options.ImageFolderOption = None,
    column: options.QuestionColumnOption = None,
    kind: options.KindOption = None,
    output: options.PredictionsOption = None,
    model: options.ModelOption = None,
    profile: options.AnswerProfileOption = None,
    batch: options.QuestionBatchOption = None,
    precision: options.PrecisionOption = "auto",
    load: options.LoadOption = "auto",
    top_k: decoding_options.TopKOption = 1,
    answers: decoding_options.AnswerListOption = None,
    choices: decoding_options.ChoicesOption = False,
    choices_by: decoding_options.ChoicesByOption = None,
    calibrate: decoding_options.CalibrateOption = False,
    unknown_below: decoding_options.UnknownBelowOption = None,
    temperature: decoding_options.TemperatureOption = None,
    seed: decoding_options.SamplingSeedOption = None,
    instruction: decoding_options.InstructionOption = None,
    max_new_tokens: decoding_options.MaxNewTokensOption = None,
    vote: options.HiddenVoteOption = None,
    server: options.ServerOption = None,
    concurrency: options.ConcurrencyOption = 16,
    allow_left_out: options.AllowLeftOutOption = False,
    allow_outside: options.AllowOutsideOption = False,
    fill_unreadable: options.FillUnreadableOption = None,
    trust_remote_code: options.TrustRemoteCode = False,
    force: options.ForceAnswersOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Answer one question, or every row of a table."""
    from kovqa_core.answer.job import AnswerJob, AnswerOptions
    from kovqa_core.data.decoding import GREEDY_DECODING, decoding_from_options
    from kovqa_core.models.load_form import require_load_form
    from kovqa_core.models.precision import require_precision

    from kovqa_cli.output.answers import print_answer, print_predictions

    decoding = decoding_from_options(
        answers,
        choices=choices,
        temperature=temperature,
        seed=seed,
        choices_by=choices_by,
        calibrate=calibrate,
    )
    other_decoding = decoding != GREEDY_DECODING
    answer_options = AnswerOptions(
        model, decoding=decoding, top_k=top_k, precision=require_precision(precision),
        load=require_load_form(load), instruction=instruction, max_new_tokens=max_new_tokens,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    if vote:
        other_options = (
            image,
            question,
            speech,
            speak,
            chat,
            input,
            images,
            kind,
            other_decoding,
            top_k > 1,
            instruction is not None,
            max_new_tokens,
            trust_remote_code,
        )
        if output is None or any(other_options):
            raise SettingsError(
                message("predict.vote-options", "--vote takes predictions files and --output"),
                message("predict.vote-options.hint", "kovqa vote A B -o C"),
            )
        _note_new_command("--vote", "kovqa vote", quiet=quiet)
        run_vote(vote, output, as_json=json, quiet=quiet)
        return
    is_asked = question is not None or speech is not None
    has_question = image is not None and is_asked and (question is None or speech is None)
    has_table = input is not None and output is not None and speech is None
    if not chat and speech is None:
        from kovqa_cli.question_mistakes import require_image_and_question, require_one_mode

        require_one_mode("predict", image, question, input, output)
        if input is None:
            require_image_and_question(image, question)
    if [has_question, has_table, chat].count(True) != 1 or (chat and (is_asked or input or output)):
        raise SettingsError(
            message("predict.one-mode", "give --image and --question, or --input and --output"),
            message(
                "predict.one-mode.hint",
                "kovqa predict -i x.png --question '무엇인가요?' (or --speech q.wav); many questions about an image: "
                "kovqa chat",
            ),
        )
    if speak and not has_question:
        raise SettingsError(
            message("predict.speak-of-a-question", "--speak reads out the answer to one question"),
            message("predict.speak-of-a-question.hint", "give --image, and --question or --speech"),
        )
    if not has_table:
        _refuse_table_options(
            column=bool(column), kind=bool(kind), choices=choices, unknown=unknown_below is not None,
            profile=bool(profile), force=force,
        )  # fmt: skip
        require_table_of_images(allow_outside=allow_outside)
        require_table(fill_unreadable)
    if server:
        refuse_with_server(
            {
                "--profile": bool(profile),
                "--chat": chat,
                "--trust-remote-code": trust_remote_code,
                "--precision": precision != "auto",
                "--load": load != "auto",
                "--answers, --choices or --temperature": other_decoding,
            }
        )
        refuse_outside_to_server(allow_outside=allow_outside)
    if chat:
        _note_new_command("--chat", "kovqa chat", quiet=quiet)
        run_chat(image, answer_options, as_json=json, quiet=quiet)
    elif image is not None and has_question:
        inputs = [image, *([speech] if speech else [])]
        voice = speech_options.load_speaking_voice(speak, speak_model, inputs) if speak else None
        heard = speech_options.hear_question(speech, speech_model, quiet=quiet or json) if speech else None
        answer = answer_question(image, heard or question or "", answer_options, server, quiet=quiet)
        sound = None
        try:
            if voice and speak:
                speech_options.read_out(voice, answer.answer.text, speak)
                sound = speak
        finally:  # the answer is there, whatever becomes of its sound
            print_answer(answer, as_json=json, quiet=quiet, heard=heard, sound=sound)
    elif input is not None and output is not None:
        job = AnswerJob(
            input, output, answer_options, images, tuple(kind or ()), batch,
            options.parse_columns(column),
            allow_left_out=allow_left_out, fill_unreadable=fill_unreadable, force=force,
            allow_outside=allow_outside, unknown_below=unknown_below,
        )  # fmt: skip
        table = answer_table(job, profile, server, concurrency, quiet=quiet or json)
        print_predictions(table, as_json=json, quiet=quiet)


def _note_new_command(option: str, command: str, *, quiet: bool) -> None:
    """Tell users of an option that has become a command of its own."""
    from kovqa_cli.output.console import print_note

    if not quiet:
        print_note(
            message(
                "predict.new-command",
                "kovqa predict {option} is now {command}: use that instead",
                option=option,
                command=command,
            )
        )


def _refuse_table_options(
    *, column: bool, kind: bool, choices: bool, unknown: bool, profile: bool, force: bool
) -> None:
    """Refuse what only a table has, where there is none."""
    hint = message("predict.table-option.hint", "give --input and --output")
    if column:
        raise SettingsError(message("predict.column-of-a-table", "--column names a column of a table"), hint)
    if kind:
        raise SettingsError(message("predict.kind-of-a-table", "--kind chooses rows of a table"), hint)
    if choices:
        raise SettingsError(message("predict.choices-of-a-table", "--choices is a column of a table"), hint)
    if unknown:
        raise SettingsError(
            message("predict.unknown-of-a-table", "--unknown-below is for rows that have a choice 'unknown'"),
            hint,
        )
    if profile:
        raise SettingsError(
            message("predict.profile-of-a-table", "--profile shares a table among processes"), hint
        )
    if force:
        raise SettingsError(
            message("predict.force-of-a-table", "--force replaces the file of --output"), hint
        )


def require_table(fill_unreadable: str | None) -> None:
    """Refuse --fill-unreadable where there is one image only.

    Raises:
        SettingsError: it is given.
    """
    if fill_unreadable is not None:
        raise SettingsError(
            message("predict.fill-of-a-table", "--fill-unreadable is for rows of a table"),
            message("predict.table-option.hint", "give --input and --output"),
        )


def require_table_of_images(*, allow_outside: bool) -> None:
    """Refuse --allow-outside where the user names the one image.

    Raises:
        SettingsError: it is given.
    """
    if allow_outside:
        raise SettingsError(
            message("predict.outside-of-a-table", "--allow-outside is for images that a table names"),
            message("predict.table-option.hint", "give --input and --output"),
        )


def refuse_with_server(options_used: Mapping[str, bool]) -> None:
    """Refuse options that a server has no request field for, or that concern this machine.

    Raises:
        SettingsError: one of them is used.
    """
    for option, is_used in options_used.items():
        if is_used:
            raise SettingsError(
                message("predict.server-option", "--server does not go with {option}", option=option),
                message("predict.server-option.hint", "leave one of them out"),
            )


def refuse_outside_to_server(*, allow_outside: bool) -> None:
    """Refuse to send images that lie anywhere.

    Raises:
        SettingsError: --allow-outside is given.
    """
    if allow_outside:
        raise SettingsError(
            message("predict.outside-to-server", "a server gets no image from outside the image folder"),
            message(
                "predict.outside-to-server.hint",
                "in place of --allow-outside name the folder that all images lie below: --images DIR",
            ),
        )


def answer_question(
    image: Path, question: str, answer_options: AnswerOptions, server: str | None, *, quiet: bool
) -> ModelAnswer:
    """One answer or caption, of a model here or on a server; for the latter nothing heavy is loaded."""
    from kovqa_cli.question_mistakes import require_image_file
    from kovqa_cli.typed_image import named_image

    with named_image(image) as path:
        require_image_file(path)
        return _answer_image(path, question, answer_options, server, quiet=quiet)


def _answer_image(
    image: Path, question: str, answer_options: AnswerOptions, server: str | None, *, quiet: bool
) -> ModelAnswer:
    if server:
        from kovqa_core.answer.remote_client import ask_server

        from kovqa_cli.output.progress import show_progress

        with show_progress(quiet, announce=True) as on_progress:
            return ask_server(server, image, question, answer_options, on_progress)
    from kovqa_core.answer.job import require_question
    from kovqa_core.runs.folder import find_model_folder

    # What needs no torch, before it is loaded for nothing.
    if answer_options.task == "vqa":
        require_question(question)
    find_model_folder(answer_options.model, answer_options.task)
    from kovqa_core.answer import local

    from kovqa_cli.output.answers import print_cpu_warning

    print_cpu_warning()
    if answer_options.task == "caption":
        return local.caption_image(image, answer_options)
    return local.answer_question(image, question, answer_options)


def answer_table(
    job: AnswerJob, profile: str | None, server: str | None, concurrency: int, *, quiet: bool
) -> AnsweredTable:
    """A predictions file, by a server, a profile's processes or this process."""
    from kovqa_core.answer.job import run_answer_job
    from kovqa_core.data.write_tables import require_table_format

    from kovqa_cli.output.answers import print_cpu_warning
    from kovqa_cli.output.progress import show_progress
    from kovqa_cli.question_mistakes import require_table_file

    require_table_file(job.table)
    require_table_format(job.output)
    if server:
        from kovqa_core.answer.remote_client import server_backend

        with (
            show_progress(quiet, announce=True) as on_progress,  # says what is waited for
            server_backend(server, job.options, concurrency, on_progress) as backend,
        ):
            return run_answer_job(job, backend, on_progress)
    if profile:
        from kovqa_core.answer.workers import worker_backend

        backend = worker_backend(profile, job.options)
    else:
        from kovqa_core.runs.folder import find_model_folder

        find_model_folder(job.options.model, job.options.task)
        from kovqa_core.answer.local import local_backend

        print_cpu_warning()
        backend = local_backend(job.options)
    with show_progress(quiet) as on_progress:
        return run_answer_job(job, backend, on_progress)
