"""Networks -> .onnx files, by torch's exporter; and what runs them, onnxruntime."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kovqa_core.errors import MachineError, ModelError
from kovqa_core.messages import message

# Computes a graph's output, by the graph's name, from arrays by the names of its inputs.
RunGraph = Callable[[str, Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class OnnxGraph:
    """A network to be written.

    Attributes:
        name: of the file, without its ending.
        network: called with tensors in the order of the inputs.
        inputs: name -> an example; 2 or more wherever a size varies.
        varying: of each input, the dimensions that vary, by the name of what they count.
        output: its name.
    """

    name: str
    network: nn.Module
    inputs: Mapping[str, Tensor]
    varying: Mapping[str, Mapping[int, str]]
    output: str


@dataclass(frozen=True)
class OnnxModel:
    """What an exported folder is made of.

    Attributes:
        graphs: its networks.
        settings: of `preprocessing.json`, besides the task.
        tokenizer: name and content of the tokenizer's file.
        answers: classes in order; None: it writes captions.
        compare: the largest difference between torch's logits and those of a runner of the graphs, on the same inputs.
    """

    graphs: tuple[OnnxGraph, ...]
    settings: Mapping[str, object]
    tokenizer: tuple[str, bytes]
    answers: list[str] | None
    compare: Callable[[RunGraph], float]


def require_onnx_libraries() -> None:
    """See that the extra is installed, before anything is read.

    Raises:
        MachineError: it is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MachineError(
            message("export.no-onnx", "--onnx needs {library}, which is not installed", library=error.name),
            message("export.no-onnx.hint", "pip install 'kovqa[onnx]'"),
        ) from None


def write_graph(graph: OnnxGraph, folder: Path) -> None:
    """Write a network as `NAME.onnx`; weights beyond 2 GB lie beside it, as the format asks for.

    Raises:
        ModelError: torch's exporter cannot trace it.
    """
    sizes = {
        size: torch.export.Dim(size) for of_input in graph.varying.values() for size in of_input.values()
    }
    shapes = tuple(
        {dimension: sizes[size] for dimension, size in graph.varying[name].items()} for name in graph.inputs
    )
    with _quiet_exporter(), torch.no_grad():
        try:
            program = torch.onnx.export(
                graph.network.eval(),
                tuple(graph.inputs.values()),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(graph.inputs),
                output_names=[graph.output],
                verbose=False,
            )
        except Exception as error:  # of whatever kind: encoders are any of transformers' and timm's
            raise ModelError(
                message(
                    "export.not-traceable",
                    "torch cannot write this network as ONNX ({error})",
                    error=(str(error).splitlines() or [type(error).__name__])[0],
                ),
                message("export.not-traceable.hint", "without --onnx it can be exported"),
            ) from None
        assert program is not None
        program.save(folder / f"{graph.name}.onnx")


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """torch's exporter warns of what it does itself; and a fused layer of torch's own has no ONNX."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        torch.backends.mha.set_fastpath_enabled(fast_path)


def run_graphs(folder: Path) -> RunGraph:
    """onnxruntime on the CPU, in fp32, for the graphs of a folder; each is opened once.

    What it gives raises a `ModelError` where onnxruntime cannot read a graph, or refuses inputs: torch may fix a size in it
    without a word (docs/surprises.md).
    """
    import onnxruntime

    sessions: dict[str, onnxruntime.InferenceSession] = {}

    def run(name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        try:
            if name not in sessions:
                sessions[name] = onnxruntime.InferenceSession(
                    folder / f"{name}.onnx", providers=["CPUExecutionProvider"]
                )
            return np.asarray(sessions[name].run(None, dict(arrays))[0])
        except Exception as error:  # the library's own, which have no common class
            raise ModelError(
                message(
                    "export.onnxruntime-refuses",
                    "onnxruntime refuses {name}.onnx ({error})",
                    name=name,
                    error=(str(error).splitlines() or [type(error).__name__])[0],
                ),
                message("export.not-traceable.hint", "without --onnx it can be exported"),
            ) from None

    return run


def classifier_model(
    network: nn.Module,
    side: int,
    ids: tuple[int, int],
    longest: int,
) -> tuple[OnnxGraph, Callable[[RunGraph], float]]:
    """The graph of a classifier over answers, and its comparison.

    Args:
        network: (pixels [B, 3, S, S], tokens [B, T], padding [B, T]) -> logits [B, C].
        side: S.
        ids: the first and the last token id that texts have.
        longest: the largest T.
    """

    def inputs(rows: int, length: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(rows)
        padding = torch.zeros(rows, length, dtype=torch.bool)
        padding[-1, length - length // 3 :] = True  # a shorter question among others
        return {
            "pixels": torch.rand(rows, 3, side, side, generator=generator) * 2 - 1,
            "tokens": torch.randint(ids[0], ids[1] + 1, (rows, length), generator=generator),
            "padding": padding,
        }

    def compare(run: RunGraph) -> float:
        return max(
            largest_difference(network(*given.values()), run("model", to_arrays(given)))
            for given in (inputs(1, 4), inputs(3, longest), inputs(2, min(9, longest)))
        )

    varying = {"pixels": {0: "batch"}, "tokens": {0: "batch", 1: "text"}, "padding": {0: "batch", 1: "text"}}
    return OnnxGraph("model", network, inputs(2, 7), varying, "logits"), compare


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Tensors as onnxruntime takes them."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def largest_difference(ours: Tensor, other: np.ndarray) -> float:
    """Between two arrays of one shape; infinite where shapes differ or a number is none."""
    if tuple(ours.shape) != other.shape:
        return float("inf")
    difference = float(np.abs(ours.numpy() - other).max())
    return float("inf") if difference != difference else difference
