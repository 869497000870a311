"""The model the engine trains and answers with: a network of transformers, its losses and its ways to answer.

Shapes: B rows, N tokens of the longest row (images' included), T of the longest prompt, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from kovqa_core.data.decoding import GREEDY_DECODING, DecodingOptions, one_answer_error
from kovqa_core.data.example import Answer
from kovqa_core.errors import ModelError
from kovqa_core.messages import message
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.compiled_layers import compile_methods, eager_layers
from kovqa_core.models.family import FamilyModel
from kovqa_core.models.vlm import choice_scores, generation, tuning
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.hf_types import HfNetwork, PromptTensors
from kovqa_core.models.vlm.host_values import HostValues, send_without_waiting
from kovqa_core.models.vlm.memory import component_of
from kovqa_core.models.vlm.processor import IGNORE_INDEX, append_answers, left_pad_prompts
from kovqa_core.models.zero_gradients import parameters_of_graph, zero_of
from kovqa_core.runs.events import report_warning


class VlmModel(FamilyModel):
    """A network that reads images and writes texts.

    Args:
        net: a class of transformers, or peft's wrapping of one.
        config: which loss, what is in 16 bits.
        generator: how it answers.
    """

    def __init__(self, net: HfNetwork, config: ModelConfig, generator: generation.TextGenerator) -> None:
        super().__init__()
        self.net = net
        self.config, self.generator = config, generator
        self.host_values = HostValues(net)
        self._untouched: list[nn.Parameter] | None = (
            None  # parameters that a loss may not reach; None: not known yet
        )
        self._compiled = False
        self.decoding = GREEDY_DECODING
        self.answer_trie: generation.AnswerTrie | None = None
        self.top_k = 1
        self.on_text: generation.OnText | None = None

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        """The mean loss of a batch; of `loss: rows`, those left out count as rows without loss."""
        # Also of a layer this batch does not use (CLIP's last one, a vision tower without images) a gradient
        # must come: a loss of 0 gives it one of 0.
        if not batch.ids:
            return {"loss": self.zero_loss()}
        tensors, host = batch.tensors, batch.on_host or batch.tensors
        inputs = {n: t for n, t in tensors.items() if n not in ("labels", "prompt_lengths")}
        labels = tensors["labels"]  # [B, N]
        # Logits [B, N, V] are the largest tensor of a step, and most are of prompts: they are made from one
        # position before the first label on, for the logits at n - 1 predict the token at n.
        first_label = int((host["labels"] != IGNORE_INDEX).any(0).int().argmax())
        positions = labels.shape[1] - first_label + 1
        inputs = self.host_values.training_inputs(inputs, host)
        with self._autocast(), self.host_values.of(host):
            logits = self._last_logits(inputs, positions)
        rows = len(batch.ids) + len(batch.left_out)
        logits, labels = logits[:, :-1], labels[:, first_label:]
        if self.config.loss == "letters":
            loss = self._letter_loss(logits, labels, host["labels"][:, first_label:], batch.choices, rows)
        else:
            loss = answer_loss(logits, labels, rows, self.config.loss)
        return {"loss": self._touch_unused(loss)}

    def _letter_loss(
        self, logits: Tensor, labels: Tensor, host_labels: Tensor, choices: Sequence[Sequence[str]], rows: int
    ) -> Tensor:
        """Of rows with choices the cross-entropy among their letters, of others that of the answers' tokens."""
        width = max(1, *map(len, choices))
        letter_ids = choice_scores.find_letter_tokens(self.generator.tokenizer, width)
        firsts = (host_labels != IGNORE_INDEX).int().argmax(1)  # [B], where answers begin
        tokens = host_labels.gather(1, firsts[:, None])[:, 0].tolist()
        targets = [
            letter_ids.index(t) if row and t in letter_ids else -1
            for t, row in zip(tokens, choices, strict=True)
        ]
        if any(row and target < 0 for row, target in zip(choices, targets, strict=True)):
            raise _letters_differ_error()
        with_letters = [n for n, row in enumerate(choices) if row]
        others = [n for n, row in enumerate(choices) if not row]
        total = (
            zero_of([], logits.device)
            if not others
            else len(others) * answer_loss(logits[others], labels[others], len(others), "rows")
        )
        if with_letters:
            firsts, device = firsts[with_letters].to(logits.device), logits.device
            of_letters = logits[with_letters, firsts][:, letter_ids].float()  # [B, C]
            absent = choice_scores.absent_choices([choices[n] for n in with_letters], width, device)
            expected = torch.tensor([targets[n] for n in with_letters], device=device)
            total = total + functional.cross_entropy(
                of_letters.masked_fill(absent, -torch.inf), expected, reduction="sum"
            )
        return total / rows

    def _last_logits(self, inputs: PromptTensors, positions: int) -> Tensor:
        """Logits of the last positions, [B, positions, V]; some classes make those of all whatever they are asked for."""
        logits: Tensor = self.net(**inputs, use_cache=False, logits_to_keep=positions).logits
        return logits[:, -positions:]

    def _touch_unused(self, loss: Tensor) -> Tensor:
        """The same loss as a function of every parameter that learns.

        Which ones a loss does not reach is looked up once. Experts are always touched: another batch uses others.
        """
        if not loss.requires_grad:
            return loss
        if self._untouched is None:
            reached = parameters_of_graph(loss)
            self._untouched = [
                parameter
                for name, parameter in self.named_parameters()
                if parameter.requires_grad and (id(parameter) not in reached or "expert" in name)
            ]
        return loss + zero_of(self._untouched) if self._untouched else loss

    def loss_weight(self, batch: ModelBatch, step: int) -> Tensor | float:
        """The answers' tokens, or the rows; see `answer_loss`."""
        if self.config.loss != "tokens":
            return float(len(batch.ids) + len(batch.left_out))
        return (batch.tensors["labels"] != IGNORE_INDEX).sum() if batch.ids else 0.0

    def answer(self, batch: ModelBatch) -> list[Answer]:
        """One answer per example, found as `decoding` says; a score is a probability in 0…1."""
        # The processor hands choices on where rows are answered with them; not every row of a batch may have some.
        chosen = self._choose(batch) if any(batch.choices) and self.answer_trie is None else []
        if chosen and all(batch.choices):
            return chosen
        batch, _ = choice_scores.split_blank_images(batch)
        host_prompts = self._host_prompts(batch)
        with self._answering(host_prompts):
            written = self._write(self._send_prompts(host_prompts, batch), batch.ids)
        if not chosen:
            return written
        return [
            by_choice if choices else free
            for choices, by_choice, free in zip(batch.choices, chosen, written, strict=True)
        ]

    def _write(self, prompts: PromptTensors, ids: Sequence[str]) -> list[Answer]:
        """Answers out of the list, or of any text."""
        generator, decoding = self.generator, self.decoding
        if self.answer_trie is not None:
            return generation.choose_from_trie(generator, prompts, self.answer_trie, self.top_k)
        if decoding.temperature:
            return generation.answer_by_sampling(generator, prompts, ids, decoding.seed, decoding.temperature)
        return generation.answer_greedily(generator, prompts, self.on_text)

    def _choose(self, batch: ModelBatch) -> list[Answer]:
        """Of every row's choices the likeliest; "" for a row without any."""
        batch, blank = choice_scores.split_blank_images(batch)
        scores = self._choice_scores(batch)
        if blank is not None:
            scores = choice_scores.calibrate_scores(scores, self._choice_scores(blank))
        return choice_scores.choose_likeliest(scores, batch.choices, self.top_k)

    def _choice_scores(self, batch: ModelBatch) -> Tensor:
        """Scores of every row's choices [B, C]; see `choice_scores`."""
        if self.decoding.choice_score == "letter":
            host_prompts = self._host_prompts(batch)
            with self._answering(host_prompts):
                prompts = self._send_prompts(host_prompts, batch)
                return choice_scores.letter_scores(self.generator, prompts, batch.choices)
        by_number = []
        # A pass for each number of a choice: images cannot be repeated row by row in every family's tensors.
        for number in range(max(map(len, batch.choices))):
            answers = [
                generation.answer_token_ids(self.generator, row[number] if number < len(row) else "")
                for row in batch.choices
            ]
            by_number.append(choice_scores.text_score(self.continuation_logits(batch, answers), answers))
        scores = torch.stack(by_number, 1)
        absent = choice_scores.absent_choices(batch.choices, scores.shape[1], scores.device)
        return scores.masked_fill(absent, -torch.inf)

    @contextlib.contextmanager
    def _answering(self, host: PromptTensors) -> Iterator[None]:
        # Compiled for training: each length of a cache would be compiled anew.
        with eager_layers(compiled=self._compiled), self._autocast(), self.host_values.of(host):
            yield

    def prompts(self, batch: ModelBatch) -> PromptTensors:
        """The prompts of a batch [B, T], padded on the left, which the functions of `generation` continue."""
        return self._send_prompts(self._host_prompts(batch), batch)

    def continuation_logits(self, batch: ModelBatch, answers: Sequence[Sequence[int]]) -> Tensor:
        """Logits of the tokens of every row's answer behind its prompt, [B, A, V]; A tokens of the longest."""
        generator, host = self.generator, batch.on_host or batch.tensors
        pad_token_id = generation.find_pad_token_id(generator.tokenizer, generator.eos_token_ids)
        rows = append_answers(host, answers, pad_token_id)
        device = batch.tensors["input_ids"].device
        tensors = {
            name: batch.tensors[name] if value is host[name] else send_without_waiting(value, device)
            for name, value in rows.items()
        }
        inputs = self.host_values.training_inputs(tensors, rows)
        # The logits at n - 1 predict the token at n: [B], from the last token of each prompt on.
        starts = host["prompt_lengths"] - 1
        first = int(starts.min())
        positions = (starts - first)[:, None] + torch.arange(max(map(len, answers)))
        with self._answering(rows):
            logits = self._last_logits(inputs, rows["input_ids"].shape[1] - first)
        return logits.gather(1, positions.to(device)[..., None].expand(-1, -1, logits.shape[-1]))

    def _host_prompts(self, batch: ModelBatch) -> PromptTensors:
        """On the CPU, where their lengths can be read."""
        generator = self.generator
        pad_token_id = generation.find_pad_token_id(generator.tokenizer, generator.eos_token_ids)
        return left_pad_prompts(batch.on_host or batch.tensors, pad_token_id)

    def _send_prompts(self, prompts: PromptTensors, batch: ModelBatch) -> PromptTensors:
        """What left-padding changed; all else of the batch, images above all, is on its device already."""
        device, host = batch.tensors["input_ids"].device, batch.on_host or batch.tensors
        tensors = {
            name: batch.tensors[name] if value is host[name] else send_without_waiting(value, device)
            for name, value in prompts.items()
        }
        return self.host_values.keep_on_host(tensors, prompts)

    def set_decoding(self, decoding: DecodingOptions) -> None:
        """From now on the model answers in this way."""
        self.decoding = decoding
        self.answer_trie = (
            generation.build_answer_trie(self.generator, decoding.answers) if decoding.answers else None
        )

    def set_top_k(self, top_k: int) -> None:
        """From now on an answer out of a list brings so many of the likeliest; see `set_top_k` of the family."""
        lists_choices = self.decoding.choices or (self.config.choices and self.decoding == GREEDY_DECODING)
        if self.answer_trie is None and not lists_choices:
            raise one_answer_error(
                message("vlm.free-writer-with-one-answer", "a model that writes freely"),
                message(
                    "vlm.free-writer-with-one-answer.hint",
                    "give it a list: --answers FILE or --choices; or leave out --top-k",
                ),
            )
        self.top_k = top_k

    def _autocast(self) -> torch.autocast:
        """What does not learn is in 16 bits, what learns in 32: autocast makes each product in 16.

        Where training has switched autocast on already, its precision holds.
        """
        device = next(self.net.parameters()).device.type
        if torch.is_autocast_enabled(device):
            return torch.autocast(device, torch.get_autocast_dtype(device))
        return torch.autocast(device, torch.bfloat16, enabled=self.config.dtype == "bf16")

    def prepare(self, *, activation_checkpointing: bool, compile: bool) -> None:
        """Activation checkpointing, and torch.compile of each layer of the language model."""
        if activation_checkpointing:
            # The reentrant kind drops gradients where no input of a layer requires one, as under LoRA.
            self.net.gradient_checkpointing_enable({"use_reentrant": False})
        if compile:
            self._compile_layers()

    def _compile_layers(self) -> None:
        """One graph for all decoder layers (two, where what the first one reads does not learn).

        Vision towers stay as they are: they read the sizes of images as numbers, and each would be compiled anew.
        """
        decoder = self.net.get_decoder()
        if not self.host_values.is_causal:
            report_warning(
                message(
                    "vlm.not-compiled",
                    "layers of {decoder} are not compiled: it is not known how many forms they would need",
                    decoder=type(decoder).__name__,
                )
            )
            return
        self._compiled = True
        self.host_values.masks_padding = False  # one form of mask
        for layer in decoder.get_submodule("layers").children():
            compile_methods(layer, "forward", fullgraph=False, dynamic=True)

    def suit_device(self, device: torch.device, precision: str) -> None:
        """What does not learn in the 16-bit type of the products; not where the whole model is saved, in its own."""
        if device.type == "cuda":
            self.host_values.masks_padding = False  # attention's fastest kernels take no mask
        if precision == "fp16" and self.config.train.language != "full":
            tuning.hold_frozen_products(self.net, torch.float16)

    def fsdp_units(self) -> list[nn.Module]:
        """Every module of a list: layers of the language model and of the vision tower; inner ones first."""
        lists = [module for module in self.net.modules() if isinstance(module, nn.ModuleList)]
        return [unit for modules in reversed(lists) for unit in modules]

    def is_head_parameter(self, name: str) -> bool:
        """The projector may have another learning rate."""
        return component_of(name) == "projector"

    def is_text_parameter(self, name: str) -> bool:
        """The language model."""
        return component_of(name) == "language"


def _letters_differ_error() -> ModelError:
    return ModelError(
        message(
            "vlm.letters-differ",
            "the chat template begins an answer's letter with another token than the tokenizer makes of the letter alone",
        ),
        message("vlm.letters-differ.hint", "use --set model.loss=rows"),
    )


def answer_loss(logits: Tensor, labels: Tensor, rows: int, mean: str) -> Tensor:
    """Cross-entropy of the answers' tokens, in fp32.

    Args:
        logits: [B, T, V]; those at t predict the token labels[:, t].
        labels: [B, T]; IGNORE_INDEX where nothing is to be learned.
        rows: rows the batch was made of.
        mean: "rows": of each row's mean, so that long answers weigh no more than short ones; "tokens": over
            all tokens, as LLaVA v1.
    """
    losses = functional.cross_entropy(
        logits.float().transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none"
    )
    num_labels = (labels != IGNORE_INDEX).sum(1)
    if mean == "tokens":
        return losses.sum() / num_labels.sum()
    return (losses.sum(1) / num_labels).sum() / rows
