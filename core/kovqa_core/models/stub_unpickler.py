"""An unpickler that runs nothing: every name in a pickle is a stub, every tensor a description of one."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import NamedTuple

import torch

_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class PickleStub:
    """Stands for any class or function: accepts whatever it is called with, and ignores it.

    Attributes:
        full_name: of what it stands for.
        state: attributes the object had, if they came as a dict.
    """

    full_name = ""
    state: dict[object, object]

    # The opcodes NEWOBJ and REDUCE call a class; BUILD calls __setstate__.
    def __new__(cls, *args: object, **kwargs: object) -> PickleStub:
        stub = super().__new__(cls)
        stub.state = {}
        return stub

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}

    def _ignore(self, *args: object) -> None: ...

    # What SETITEMS, APPENDS and ADDITEMS call on whatever object the pickle names.
    __setitem__ = append = extend = add = _ignore


class _PlainOrderedDict(dict[object, object]):
    """An `OrderedDict` that has no attributes."""

    def __setstate__(self, state: object) -> None: ...


class StorageRef(NamedTuple):
    """Where values are stored."""

    dtype: torch.dtype
    key: str  # member of the archive

    def __setstate__(self, state: object) -> None: ...


class StoredTensor(NamedTuple):
    """A tensor as the pickle describes it: arguments of `torch._utils._rebuild_tensor_v2`, none of them checked."""

    storage: object
    offset: object
    size: object
    stride: object
    requires_grad: object = False
    hooks: object = None
    metadata: object = None

    def __setstate__(self, state: object) -> None: ...


class StoredParameter(NamedTuple):
    """Arguments of `torch._utils._rebuild_parameter`, or of `…_with_state`."""

    data: object
    requires_grad: object = True
    hooks: object = None
    state: object = None

    def __setstate__(self, state: object) -> None: ...


# Everything a checkpoint can call. Each ignores `__setstate__`, so that no pickle can change one.
_ALLOWED_GLOBALS: dict[tuple[str, str], object] = {
    ("torch._utils", "_rebuild_tensor_v2"): StoredTensor,
    ("torch._utils", "_rebuild_parameter"): StoredParameter,
    ("torch._utils", "_rebuild_parameter_with_state"): StoredParameter,
    ("collections", "OrderedDict"): _PlainOrderedDict,
    ("builtins", "set"): set,
    # Python 2's name of the module, which protocol 2 writes.
    ("__builtin__", "set"): set,
    **{("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()},
}


class _StubUnpickler(pickle.Unpickler):
    """Imports nothing: a name is one of the table above, or a stub."""

    def find_class(self, module: str, name: str) -> object:
        allowed = _ALLOWED_GLOBALS.get((module, name))
        if allowed is None:
            return type("Stub", (PickleStub,), {"full_name": f"{module}.{name}"})
        return allowed

    def persistent_load(self, pid: object) -> StorageRef:
        # What torch writes in place of a tensor's values: ("storage", dtype, member of the archive, …).
        if not isinstance(pid, tuple) or len(pid) < 3:
            raise pickle.UnpicklingError("a storage of an unknown type")
        marker, dtype, key = pid[:3]
        if marker != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("a storage of an unknown type")
        return StorageRef(dtype, key)


def unpickle_stubs(data: bytes) -> object:
    """What a pickle describes, made of stubs, descriptions of tensors, and plain values.

    Raises:
        Exception: of any kind; a forged pickle can make the unpickler raise anything.
    """
    for operation, argument, _ in pickletools.genops(data):
        # The unpickler allocates its memo for the largest number it meets: four bytes can ask for gigabytes.
        if operation.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise pickle.UnpicklingError("more objects than bytes")
    return _StubUnpickler(io.BytesIO(data)).load()
