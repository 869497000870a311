"""A loaded model answers questions that do not stand in a table: of a server's clients, of a Python program.

Images come from files or from memory, answers in the order of the questions; an image that cannot be read leaves
its neighbours as they are. Of questions nothing is kept, of images in memory the pixels of the last ones; several threads
may ask one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kovqa_core.answer.batch_size import choose_batch
from kovqa_core.answer.inference import answer_examples
from kovqa_core.answer.job import require_question
from kovqa_core.answer.local import LoadedModel
from kovqa_core.answer.partial_file import RowFault
from kovqa_core.data.example import Answer, AskedExample
from kovqa_core.data.image_source import ImageSource
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import real_path, to_nfc
from kovqa_core.models.family import load_family

_SINGLE_RANK = RankInfo(0, 0, 1)


@dataclass(frozen=True)
class ImageQuestion:
    """What is asked about one image.

    Attributes:
        image: its file, or a whole file's bytes.
        question: the text; "" where a caption is wanted.
        context: text to be read before the question, by a model that reads such a text.
        choices: the only possible answers, for a model that chooses among them.
    """

    image: ImageSource
    question: str = ""
    context: str = ""
    choices: Sequence[str] = ()

    def to_example(self) -> AskedExample:
        """The same for a model's processor; without an id: errors name the image alone."""
        source = real_path(self.image) if isinstance(self.image, Path) else self.image
        return AskedExample(
            "", "", to_nfc(self.question), choices=tuple(map(to_nfc, self.choices)), context=to_nfc(self.context),
            source=source,
        )  # fmt: skip


def ask_model(
    loaded: LoadedModel, questions: Sequence[ImageQuestion], *, batch: int | None = None
) -> list[Answer | RowFault]:
    """The answer to each question in their order, or why it has none.

    The answers are those of `kovqa predict`, as far as the model's own numbers do not depend on what else is in a
    batch; an image in memory gives what its file gives. Image files are read anew at each call.

    Args:
        loaded: by `load_model`; it also says how many of the likeliest answers come with each.
        questions: of any number; of a captioner their images.
        batch: rows at once; None: as many as suit the device.

    Raises:
        MachineError: not even one row fits into memory.
    """
    results = dict[int, Answer | RowFault]()
    examples, numbers = list[AskedExample](), list[int]()
    asks = loaded.info.task == "vqa"
    for number, question in enumerate(questions):
        try:
            if asks:
                require_question(question.question)
        except SettingsError as error:
            results[number] = RowFault(error.message, error.hint)
            continue
        examples.append(question.to_example())
        numbers.append(number)

    def note_fault(place: int, error: DataError) -> None:
        results[numbers[place]] = RowFault.of_error(error)

    if examples:
        with loaded.in_use:
            size = batch or choose_batch(
                loaded.folder, loaded.info, loaded.device, loaded.precision, len(examples), 0, loaded.decoding
            )
            answers = answer_examples(
                loaded.model, loaded.processor, examples, Path(), _SINGLE_RANK, loaded.device, size,
                autocast=loaded.autocast, on_fault=note_fault,
            )  # fmt: skip
            for place, answer in answers:
                is_cut = asks and _is_cut(loaded, examples[place])
                results[numbers[place]] = replace(answer, is_cut=True) if is_cut else answer
    return [results[number] for number in range(len(questions))]


def _is_cut(loaded: LoadedModel, example: AskedExample) -> bool:
    """Is a question longer than the model reads?"""
    count_texts = load_family(loaded.info.family).count_text_tokens
    return count_texts is not None and count_texts(loaded.processor, [example]).cut > 0
