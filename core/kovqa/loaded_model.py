"""A model that is loaded once and asked many times; the work is that of `kovqa_core.answer.ask_model`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from kovqa_core.data.example import Answer
from kovqa_core.errors import DataError, KovqaError, MachineError, ModelError, SettingsError
from kovqa_core.messages import message

from kovqa.image_input import ImageInput, expand_user, to_image_source

if TYPE_CHECKING:
    import torch
    from kovqa_core.answer.local import LoadedModel


@dataclass(frozen=True)
class Question:
    """A question about an image, with what else some models read.

    Attributes:
        image: see `ImageInput`.
        question: the text.
        context: a text to be read before the question; of vision language models.
        choices: the only possible answers; of vision language models.
    """

    image: ImageInput
    question: str
    context: str = ""
    choices: Sequence[str] = ()


def load(
    run: str | Path,
    *,
    device: str | None = None,
    precision: str = "auto",
    top_k: int = 1,
    answers: Sequence[str] = (),
    beams: int | None = None,
    trust_remote_code: bool = False,
    load: str = "auto",
    task: Literal["vqa", "caption"] | None = None,
    instruction: str | None = None,
) -> Model:
    """Load a trained model.

    Args:
        run: a run folder (its best step), a step folder, a Hugging Face folder, or OWNER/NAME[@REVISION] of the Hugging
            Face hub, of which a copy is here (`kovqa download hf:OWNER/NAME`).
        device: "cpu", "cuda", "cuda:1" or "mps"; None: this machine's NVIDIA GPU if it has one, else its CPU.
        precision: what it computes in: "bf16", "fp16", "fp32"; "auto": 16 bits on an NVIDIA GPU, elsewhere as the
            model was made.
        top_k: so many of the likeliest come with each answer (`Answer.likeliest`). A vision language model has them
            only where it chooses: from `answers`, or among a question's `choices`.
        answers: the only possible answers of a vision language model.
        beams: captions followed at once; None: as the model was made.
        trust_remote_code: may Python code in the folder of a vision language model run? Read it first.
        load: "4bit": the language model of a vision language model in 4 bits, in less memory; "auto": as it was made.
        task: "caption": a chat model describes images; None: what the model was made for.
        instruction: how a chat model is asked for a caption: "ko", "en", or any text; None: Korean.

    Raises:
        ModelError: there is no model, or its files are damaged.
        SettingsError: an option that the model does not have, or a device that there is not.
        MachineError: the device, or what 4 bits need, is not here.
        AssetError: the model of the hub, or the base of a vision language model, is not here.
    """
    from kovqa_core.answer.job import AnswerOptions
    from kovqa_core.answer.local import load_model
    from kovqa_core.data.decoding import GREEDY_DECODING, DecodingOptions
    from kovqa_core.models.checkpoint_info import read_checkpoint_info
    from kovqa_core.models.family import load_family
    from kovqa_core.runs.folder import find_model_folder

    if top_k < 1:
        raise SettingsError(message("api.top-k", "top_k={top_k}: 1 is the answer alone", top_k=top_k))
    _require_list("answers", answers)
    if beams is not None and beams < 1:
        raise SettingsError(message("api.beams", "beams={beams}: 1 is the fewest", beams=beams))
    folder = expand_user(Path(run))
    info = read_checkpoint_info(find_model_folder(folder, "vqa"))
    decoding = GREEDY_DECODING
    if answers:
        decoding = DecodingOptions(answers=tuple(answers))
    elif task != "caption" and load_family(info.family).set_decoding is not None:
        # Asks no question in another way that brings no choices.
        decoding = DecodingOptions(choices=True)
    options = AnswerOptions(
        folder,
        task or info.task,
        decoding,
        beams,
        top_k,
        precision,
        load,
        instruction,
        trust_remote_code=trust_remote_code,
    )
    return Model(load_model(options, _find_device(device)))


def _find_device(name: str | None) -> torch.device | None:
    """The device of a name.

    Raises:
        SettingsError: there is no such name.
        MachineError: it is not here.
    """
    if name is None:
        return None
    import torch

    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise SettingsError(
            message("api.unknown-device", "device {name!r}: there is no such one", name=name),
            message("api.unknown-device.hint", "use cpu, cuda, cuda:1 or mps"),
        )
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= count[device.type]:
        raise MachineError(
            message("api.no-device", "device {name}: torch sees {count} of this kind here", name=name,
                    count=count[device.type]),
            message("api.no-device.hint", "leave device out, or see kovqa doctor --deep"),
        )  # fmt: skip
    return device


class Model:
    """A loaded model; `load` makes one. Several threads may ask it: it answers one call after the other.

    Attributes:
        folder: the step folder that it was read from.
        task: "vqa" or "caption".
        family: "beit3", "fusion" or "vlm".
        device: where it is, as torch writes it.
        precision: what it computes in.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        from kovqa_core.models.family import load_family

        info = loaded.info
        prompt_columns = load_family(info.family).prompt_columns
        self._loaded = loaded
        self._read_columns = prompt_columns(loaded.processor) if prompt_columns else ()
        self.folder, self.task, self.family = loaded.folder, info.task, info.family
        self.device, self.precision = str(loaded.device), loaded.precision

    def __repr__(self) -> str:
        return f"<kovqa.Model {self.family} for {self.task}, {self.folder}, on {self.device} in {self.precision}>"

    def answer(
        self, image: ImageInput, question: str, *, context: str = "", choices: Sequence[str] = ()
    ) -> Answer:
        """The answer to one question about an image.

        Args:
            image: see `ImageInput`.
            question: the text.
            context, choices: see `Question`.

        Raises:
            DataError: the image cannot be read.
            SettingsError: the question is empty; the model reads no such context or choices.
            ModelError: the model captions images.
        """
        return self.answer_many([Question(image, question, context, choices)])[0]

    @overload
    def answer_many(
        self,
        questions: Iterable[Question | tuple[ImageInput, str]],
        *,
        batch: int | None = None,
        errors: Literal["raise"] = "raise",
    ) -> list[Answer]: ...

    @overload
    def answer_many(
        self,
        questions: Iterable[Question | tuple[ImageInput, str]],
        *,
        batch: int | None = None,
        errors: Literal["return"],
    ) -> list[Answer | DataError]: ...

    def answer_many(
        self,
        questions: Iterable[Question | tuple[ImageInput, str]],
        *,
        batch: int | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> Sequence[Answer | DataError]:
        """The answers to many questions, in their order.

        Args:
            questions: pairs of image and question, or `Question`s.
            batch: rows at once; None: as many as suit the device.
            errors: "return": an image that cannot be read has its `DataError` in place of an answer; "raise": it ends
                the call, and no answer is returned.

        Raises:
            as `answer`; the number of the question is named, from 0.
        """
        self._require_task("vqa")
        asked = [each if isinstance(each, Question) else Question(*each) for each in questions]
        for number, each in enumerate(asked):
            self._require_readable(each, number if len(asked) > 1 else None)
        return self._ask(asked, batch, errors)

    def caption(self, image: ImageInput) -> Answer:
        """A sentence about an image; raises as `answer`."""
        return self.caption_many([image])[0]

    @overload
    def caption_many(
        self, images: Iterable[ImageInput], *, batch: int | None = None, errors: Literal["raise"] = "raise"
    ) -> list[Answer]: ...

    @overload
    def caption_many(
        self, images: Iterable[ImageInput], *, batch: int | None = None, errors: Literal["return"]
    ) -> list[Answer | DataError]: ...

    def caption_many(
        self,
        images: Iterable[ImageInput],
        *,
        batch: int | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> Sequence[Answer | DataError]:
        """Sentences about many images, in their order; arguments and errors as of `answer_many`."""
        self._require_task("caption")
        return self._ask([Question(image, "") for image in images], batch, errors)

    def _ask(self, questions: Sequence[Question], batch: int | None, errors: str) -> list[Answer | DataError]:
        from kovqa_core.answer.ask_model import ImageQuestion, ask_model

        if batch is not None and batch < 1:
            raise SettingsError(message("api.batch", "batch={batch}: 1 is the fewest", batch=batch))
        results = dict[int, Answer | DataError]()
        asked = dict[int, ImageQuestion]()
        for number, each in enumerate(questions):
            try:
                source = to_image_source(each.image)
            except DataError as error:
                results[number] = error
            else:
                asked[number] = ImageQuestion(source, each.question, each.context, tuple(each.choices))
        answers = ask_model(self._loaded, list(asked.values()), batch=batch)
        for number, answer in zip(asked, answers, strict=True):
            if isinstance(answer, Answer):
                results[number] = answer
            else:
                results[number] = DataError(answer.problem, answer.hint)
        in_order = list[Answer | DataError]()
        for number in range(len(questions)):
            result = results[number]
            if isinstance(result, DataError):
                named = _numbered(result.message, number if len(questions) > 1 else None)
                result = DataError(named, result.hint)
                if errors == "raise":
                    raise result
            in_order.append(result)
        return in_order

    def _require_task(self, task: str) -> None:
        if self.task != task:
            raise ModelError(
                message("api.other-task", "{folder} was trained for {trained_for}, not for {task}",
                        folder=self.folder, trained_for=self.task, task=task),
                message("api.other-task.hint", "a model for vqa has answer(), one for caption has caption()"),
            )  # fmt: skip

    def _require_readable(self, question: Question, number: int | None) -> None:
        """See that a question asks something, and brings nothing that the model does not read.

        Raises:
            SettingsError: it does.
        """
        from kovqa_core.data.decoding import parse_choices

        _require_text(question.question, number)
        _require_list("choices", question.choices)
        if not question.question.strip():
            raise SettingsError(_numbered(message("api.empty-question", "the question is empty"), number))
        given = {"context": bool(question.context.strip()), "choices": bool(question.choices)}
        for name, is_given in given.items():
            if is_given and name not in self._read_columns:
                unread = message(
                    "api.not-read", "this model ({family}) reads no {name}", family=self.family, name=name
                )
                raise SettingsError(_numbered(unread, number))  # fmt: skip
        if question.choices:
            try:
                parse_choices(list(question.choices), "choices")
            except KovqaError as error:
                raise SettingsError(_numbered(error.message, number), error.hint) from None


def _require_text(question: object, number: int | None) -> None:
    """See that a question is a text that UTF-8 can write, as tokenizers need it."""
    try:
        if isinstance(question, str) and question.encode():
            return
    except UnicodeEncodeError:
        pass
    if question != "":
        raise SettingsError(_numbered(message("api.not-a-text", "the question is not a text"), number))


def _require_list(name: str, texts: object) -> None:
    """See that several texts are not one: its letters would be taken for them."""
    if isinstance(texts, str):
        raise SettingsError(
            message("api.one-text", "{name}={text!r} is one text", name=name, text=texts),
            message("api.one-text.hint", "give a list of texts"),
        )


def _numbered(problem: str, number: int | None) -> str:
    """A problem, with the number of its question where there are several."""
    if number is None:
        return problem
    return message("api.of-question", "question {number}: {problem}", number=number, problem=problem)
