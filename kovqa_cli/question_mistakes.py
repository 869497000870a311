"""What is missing or crossed where an image, a question or a table is named; each with the command to type."""

from __future__ import annotations

from pathlib import Path

from kovqa_core.errors import DataError, SettingsError, with_near_files
from kovqa_core.messages import message, shell_quote


def require_one_mode(
    command: str, image: Path | None, question: str | None, input: Path | None, output: Path | None
) -> None:
    """Refuse an image or table that lacks its other half, or what is of the other mode.

    Args:
        command: "predict" or "caption".
        image, question, input, output: the options; of `caption` no question.

    Raises:
        SettingsError: names what is missing, and the whole command.
    """
    if input is not None and image is not None:
        raise SettingsError(
            message("answer.image-and-table", "--image is one image, --input a table: one of them at a time"),
            message("answer.image-and-table.hint", "leave one of them out"),
        )
    if input is not None and question is not None:
        raise SettingsError(
            message(
                "answer.question-and-table", "--question is for one image; a table has its own questions"
            ),
            message("answer.question-and-table.hint", "leave out --question, or name one image with -i"),
        )
    if input is not None and output is None:
        name = shell_quote(f"{input.stem or 'table'}-{'captions' if command == 'caption' else 'answers'}.csv")
        raise SettingsError(
            message("answer.no-output", "--input wants a file for the answers: -o FILE"),
            message(
                "answer.no-output.hint", "kovqa {command} --input {table} -o {output}",
                command=command, table=shell_quote(input), output=name,
            ),
        )  # fmt: skip
    if input is None and output is not None and image is None:
        raise SettingsError(
            message("answer.no-input", "-o is the file for the answers of a table, and none is named"),
            message(
                "answer.no-input.hint", "kovqa {command} --input TABLE.csv -o {output}",
                command=command, output=shell_quote(output),
            ),
        )  # fmt: skip


def require_image_and_question(image: Path | None, question: str | None) -> None:
    """Refuse one of the two without the other, and the two exchanged.

    Raises:
        SettingsError: names what is missing, and the whole command.
    """
    if image is not None and question is None:
        raise SettingsError(
            message("answer.no-question", "there is no question about {image}", image=image),
            message(
                "answer.no-question.hint",
                "kovqa predict -i {image} --question '무엇인가요?' (several: kovqa chat -i {image}; a description: "
                "kovqa caption -i {image})",
                image=shell_quote(image),
            ),
        )
    if image is None and question is not None:
        raise SettingsError(
            message("answer.no-image", "no image is named for the question"),
            message(
                "answer.no-image.hint", "kovqa predict -i IMAGE --question {question}",
                question=shell_quote(question),
            ),
        )  # fmt: skip
    if image is not None and question is not None and not image.exists() and _is_file(question):
        raise SettingsError(
            message("answer.crossed", "--question names a file, and --image does not: they are exchanged"),
            message(
                "answer.crossed.hint", "kovqa predict -i {image} --question {question}",
                image=shell_quote(question), question=shell_quote(image),
            ),
        )  # fmt: skip


def require_image_file(image: Path) -> None:
    """See that an image that was named is there.

    Raises:
        DataError: it is not, with the names beside it that are like its own; or it is a folder.
    """
    if image.is_dir():
        raise DataError(
            message("answer.image-is-folder", "{image} is a folder, not an image", image=image),
            message(
                "answer.image-is-folder.hint", "for all images in it: kovqa caption --input {image} -o captions.csv",
                image=shell_quote(image),
            ),
        )  # fmt: skip
    if not image.exists():
        problem = message("answer.image-not-found", "image {image} is missing", image=image)
        raise DataError(
            with_near_files(problem, image),
            message("answer.image-not-found.hint", "check the path; a name with blanks wants quotes"),
        )


def require_table_file(table: Path) -> None:
    """See that a table that was named is there, before a model is looked for.

    Raises:
        DataError: it is not, with the names beside it that are like its own.
    """
    if not table.exists() and not any(
        letter in str(table) for letter in "*?[{"
    ):  # several shards by a pattern
        problem = message("answer.table-not-found", "no table {table}", table=table)
        raise DataError(
            with_near_files(problem, table),
            message("answer.table-not-found.hint", "check the path; a name with blanks wants quotes"),
        )


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a question too long for a name
        return False
