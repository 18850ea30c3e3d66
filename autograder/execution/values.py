"""Turn values into JSON and bytes, and back.

Tensors go with their storage: two views of one storage are views of one
storage on the other side, and what comes back knows whose memory it uses. So
the caller can be told what a call changed in place, and gets its own objects
back where the callee returns what it was given.

What isn't data (functions, classes, modules, iterators, objects of a class)
stays where it is; the other side gets a handle.
"""

from collections import namedtuple
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from autograder.execution.wire import MOST_BYTES, WireError

SMALL = 4 << 20  # bytes; a larger storage is sent only if most of it is used
MOST_DIMENSIONS = 32
PLAIN = (bool, str, float)
CONTAINERS = (list, dict, set)


class Lender(Protocol):
    """Who keeps the objects that stay, and makes proxies of the others'."""

    def lend(self, value: Any, encoder: "Encoder") -> dict[str, Any]:
        """Describe what is no data; the description is JSON."""

    def proxy(self, description: dict[str, Any], decoder: "Decoder") -> Any:
        """Stand in for an object of the other side."""

    def own(self, handle: int) -> Any:
        """Return the object of this side that has the handle."""


def has_methods(kind: type) -> bool:
    """Say whether a student has given a kind of container public methods.

    What is of such a kind, as ``class Cache(list)`` with an ``update`` of its
    own, is more than its items, and stays where it is.
    """
    return any(
        callable(value) and not name.startswith("_")
        for base in kind.__mro__
        if base.__module__ == "submission"
        for name, value in vars(base).items()
    )


@dataclass
class Storage:
    """Memory in a message: the storage itself, or a copy of one tensor."""

    storage: torch.UntypedStorage
    copy_of: Tensor | None = None


@dataclass
class Encoder:
    """Write the values of one message.

    Attributes:
        lender: keeps what is not data.
        request: the message that this one answers, if it answers one.
        objects: every tensor and container in the message, by its number.
        storages: every storage in the message, by its number.
        leaves: in a request, the tensors that want a gradient.
        tracked: in an answer, the tensors that a gradient goes through.
    """

    lender: Lender
    request: "Decoder | None" = None
    differentiate: bool = False
    objects: list[Any] = field(default_factory=list)
    storages: list[Storage] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)
    tracked: list[Tensor] = field(default_factory=list)
    blobs: list[Any] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)
    _places: dict[int, int] = field(default_factory=dict)

    def encode(self, value: Any) -> Any:
        """Return a value as JSON; its bytes go among the blobs."""
        if value is None or type(value) in PLAIN:
            return value
        if type(value) is int:
            return value if abs(value) < 1 << 63 else {"int": hex(value)}
        if self.request and (n := self.request.number(value)) is not None:
            return {"ref": n}
        if id(value) in self._numbers:
            return {"again": self._numbers[id(value)]}
        if isinstance(value, Tensor):
            # A subclass may answer as it likes to what it is asked.
            with torch._C.DisableTorchFunctionSubclass():
                if value.layout is torch.strided:
                    return self._tensor(value)
        if isinstance(value, CONTAINERS) and not has_methods(type(value)):
            return self._container(value)
        return self._other(value)

    def _other(self, value: Any) -> Any:
        if isinstance(value, torch.Size):
            return {"size": [int(n) for n in value]}
        if isinstance(value, tuple):
            items = [self.encode(item) for item in value]
            names = [str(name) for name in getattr(value, "_fields", ())]
            return {"tuple": items, "names": names}
        if isinstance(value, np.ndarray | np.generic):
            if value.dtype.kind in "biufc":
                return self._array(value)
        elif isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        elif isinstance(value, torch.device):
            return {"device": str(value)}
        elif isinstance(value, torch.Generator):
            return self._generator(value)
        elif isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        elif isinstance(value, bytes | bytearray):
            return {"bytes": self.blob(bytes(value))}
        elif isinstance(value, slice | range):
            parts = [value.start, value.stop, value.step]
            return {type(value).__name__: [self.encode(p) for p in parts]}
        elif value is Ellipsis:
            return {"ellipsis": True}
        elif isinstance(value, bool | str | float | int):
            if isinstance(value, str):  # of a subclass, such as an Enum's
                return str.__str__(value)
            plain = float if isinstance(value, float) else int
            return self.encode(plain(value))
        return self.lender.lend(value, self)

    def _number(self, value: Any) -> int:
        self._numbers[id(value)] = len(self.objects)
        self.objects.append(value)  # which keeps its id from being used anew
        return len(self.objects) - 1

    def blob(self, data: Any) -> int:
        """Put bytes among the blobs, and return their number."""
        self.blobs.append(data)
        return len(self.blobs) - 1

    def _container(self, value: list | dict | set) -> dict[str, Any]:
        kind = next(c for c in CONTAINERS if isinstance(value, c))
        number = self._number(value)
        return {kind.__name__: [number, self.items(value)]}

    def items(self, value: list | dict | set) -> list[Any]:
        """Return the contents of a container as JSON."""
        if isinstance(value, dict):
            value = [item for pair in value.items() for item in pair]
        return [self.encode(item) for item in value]

    def _array(self, value: np.ndarray | np.generic) -> dict[str, Any]:
        scalar = isinstance(value, np.generic)
        data = np.ascontiguousarray(value)
        shape = [] if scalar else list(value.shape)
        blob = self.blob(data.tobytes())
        return {"array": [data.dtype.str, shape, blob], "scalar": scalar}

    def _generator(self, value: torch.Generator) -> dict[str, Any]:
        number = self._number(value)
        return {"generator": [number, self.state_of(value)]}

    def state_of(self, generator: torch.Generator) -> int:
        """Put a generator's state among the blobs."""
        return self.blob(generator.get_state().numpy().tobytes())

    def _tensor(self, value: Tensor) -> dict[str, Any]:
        wants = value.requires_grad
        if wants and self.request and self.differentiate:
            self.tracked.append(value)
            return {"tracked": len(self.tracked) - 1}
        number = self._number(value)
        note: dict[str, Any] = {}
        if wants and self.request:
            note = {"requires_grad": True}
        elif wants and self.differentiate:
            self.leaves.append(value)
            note = {"leaf": value.is_leaf}
        plain = value.detach().resolve_conj().resolve_neg()
        dtype = str(plain.dtype).removeprefix("torch.")
        if plain.is_meta:
            return {"meta": [number, dtype, list(plain.shape)]}
        if plain.device.type != "cpu":
            plain = plain.cpu()
        where, plain = self._place(plain)
        place = [where, dtype, list(plain.shape), list(plain.stride())]
        spec = [number, *place, plain.storage_offset()]
        return {"tensor": spec} | note

    def _place(self, plain: Tensor) -> tuple[int, Tensor]:
        """Return the number of a tensor's storage, and the tensor in it."""
        storage = plain.untyped_storage()
        key = storage.data_ptr()
        if self.request and key in self.request.places:
            return -1 - self.request.places[key], plain
        if key and key in self._places:
            return self._places[key], plain
        size = plain.numel() * plain.itemsize
        if storage.nbytes() > max(SMALL, 2 * size):
            original, plain = plain, plain.contiguous().clone()
            self.storages.append(Storage(plain.untyped_storage(), original))
        else:
            self.storages.append(Storage(storage))
            self._places[key] = len(self.storages) - 1
        return len(self.storages) - 1, plain

    def finish(self) -> dict[str, Any]:
        """Return the list of storages, whose bytes go among the blobs."""
        return {
            "storages": [
                self.blob(bytes_of(one.storage)) for one in self.storages
            ]
        }


@dataclass
class Decoder:
    """Read the values of one message.

    Attributes:
        lender: makes proxies for what is not data.
        blobs: the bytes of the message.
        sent: the message that this one answers, if it answers one.
        tracked: in an answer, the tensors that a gradient goes through.
        objects: every tensor and container in the message, by its number.
        leaves: in a request, the tensors that want a gradient.
        places: the number of each storage, by its address.
    """

    lender: Lender
    blobs: list[bytearray]
    sent: Encoder | None = None
    tracked: list[Tensor] = field(default_factory=list)
    objects: dict[int, Any] = field(default_factory=dict)
    leaves: list[Tensor] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    _storages: list[torch.UntypedStorage] = field(default_factory=list)
    _bytes_before: dict[int, bytes] = field(default_factory=dict)
    _before: dict[int, Any] = field(default_factory=dict)
    _numbers: dict[int, int] = field(default_factory=dict)

    def start(self, message: dict[str, Any]) -> None:
        """Take in the message's storages, before its values are decoded."""
        for blob in message.get("storages", []):
            data = self.blobs[blob]
            storage = (
                torch.frombuffer(data, dtype=torch.uint8).untyped_storage()
                if data
                else torch.UntypedStorage(0)
            )
            if data:
                self.places[storage.data_ptr()] = len(self._storages)
            self._storages.append(storage)

    def remember(self, message: dict[str, Any]) -> None:
        """Keep what the storages hold, to see later what has changed."""
        self._bytes_before = {
            number: bytes(self.blobs[blob])
            for number, blob in enumerate(message.get("storages", []))
        }

    def shares_memory(self, value: Tensor) -> bool:
        """Say whether a tensor's memory is that of something sent before."""
        address = value.untyped_storage().data_ptr()
        sent = self.sent.storages if self.sent else []
        return any(one.storage.data_ptr() == address for one in sent)

    def number(self, value: Any) -> int | None:
        """Return the number that an object had in the message."""
        return self._numbers.get(id(value))

    def decode(self, value: Any) -> Any:
        """Return the value that is written in JSON.

        Raises:
            WireError: if it is written as no value can be.
        """
        if not isinstance(value, dict):
            if isinstance(value, list):
                raise WireError("a bare list stands in a message")
            return value
        try:
            kind = next(iter(value))
            return KINDS[kind](self, value[kind], value)
        except WireError:
            raise
        except (
            StopIteration,
            AttributeError,
            KeyError,
            IndexError,
            TypeError,
            ValueError,
            RecursionError,
            RuntimeError,
        ) as error:
            raise WireError(f"this is no value ({error})") from None

    def _keep(self, number: int, value: Any) -> Any:
        self.objects[number] = value
        self._numbers[id(value)] = number
        return value

    def _ref(self, number: int, _: dict) -> Any:
        if number < 0:
            raise WireError("this is no number of an object")
        return self.sent.objects[number]

    def _again(self, number: int, _: dict) -> Any:
        return self.objects[number]

    def _tracked(self, number: int, _: dict) -> Tensor:
        return self.tracked[number]

    def _int(self, text: str, _: dict) -> int:
        return int(text, 16)

    def _tuple(self, items: list, whole: dict) -> tuple:
        values = [self.decode(item) for item in items]
        if names := whole["names"]:
            return namedtuple("Named", names)(*values)
        return tuple(values)

    def _list(self, spec: list, _: dict) -> list:
        made = self._keep(spec[0], [])
        return self._filled(spec, made)

    def _dict(self, spec: list, _: dict) -> dict:
        made = self._keep(spec[0], {})
        return self._filled(spec, made)

    def _set(self, spec: list, _: dict) -> set:
        made = self._keep(spec[0], set())
        return self._filled(spec, made)

    def _filled(self, spec: list, container: Any) -> Any:
        number, items = spec
        self.fill(container, items)
        self._before[number] = snapshot(container)
        return container

    def fill(self, container: list | dict | set, items: list) -> None:
        """Replace what a container holds."""
        values = [self.decode(item) for item in items]
        container.clear()
        if isinstance(container, list):
            container.extend(values)
        elif isinstance(container, set):
            container.update(values)
        else:
            pairs = zip(values[::2], values[1::2], strict=True)
            container.update(pairs)

    def _size(self, sizes: list, _: dict) -> torch.Size:
        return torch.Size(sizes)

    def _dtype(self, name: str, _: dict | None = None) -> torch.dtype:
        dtype = getattr(torch, name)
        if not isinstance(dtype, torch.dtype):
            raise WireError(f"{name} is no dtype")
        return dtype

    def _device(self, name: str, _: dict) -> torch.device:
        return torch.device(name)

    def _complex(self, parts: list, _: dict) -> complex:
        return complex(*parts)

    def _bytes(self, blob: int, _: dict) -> bytes:
        return bytes(self.blobs[blob])

    def _slice(self, parts: list, _: dict) -> slice:
        return slice(*(self.decode(part) for part in parts))

    def _range(self, parts: list, _: dict) -> range:
        return range(*(self.decode(part) for part in parts))

    def _ellipsis(self, *_: Any) -> Any:
        return Ellipsis

    def _array(self, spec: list, whole: dict) -> np.ndarray | np.generic:
        name, shape, blob = spec
        dtype = np.dtype(name)
        if dtype.kind not in "biufc" or dtype.shape:
            raise WireError(f"an array of {name} can't be sent")
        array = np.frombuffer(self.blobs[blob], dtype).reshape(shape)
        return array[()] if whole.get("scalar") else array

    def _generator(self, spec: list, _: dict) -> torch.Generator:
        number, blob = spec
        made = torch.Generator()
        self.set_state(made, blob)
        self._before[number] = made.get_state()
        return self._keep(number, made)

    def set_state(self, generator: torch.Generator, blob: int) -> None:
        """Put a generator into the state that another is in."""
        data = torch.frombuffer(self.blobs[blob], dtype=torch.uint8)
        generator.set_state(data.clone())

    def _meta(self, spec: list, _: dict) -> Tensor:
        number, dtype, shape = spec
        made = torch.empty(shape, dtype=self._dtype(dtype), device="meta")
        return self._keep(number, made)

    def _tensor(self, spec: list, whole: dict) -> Tensor:
        number, where, name, size, stride, offset = spec
        dtype = self._dtype(name)
        storage = self._storage(where)
        check_bounds(storage, dtype.itemsize, size, stride, offset)
        made = torch.empty(0, dtype=dtype)
        made.set_(storage, offset, size, stride)
        if "leaf" in whole:
            leaf = made.requires_grad_()
            self.leaves.append(leaf)
            with torch.enable_grad():
                made = leaf if whole["leaf"] else leaf.clone()
        elif whole.get("requires_grad"):
            made.requires_grad_()
        return self._keep(number, made)

    def _storage(self, where: int) -> torch.UntypedStorage:
        if where >= 0:
            return self._storages[where]
        return self.sent.storages[-1 - where].storage

    def _object(self, description: dict, _: dict) -> Any:
        return self.lender.proxy(description, self)

    def _own(self, handle: int, _: dict) -> Any:
        return self.lender.own(handle)

    def changes(self, answer: Encoder) -> dict[str, Any]:
        """Say what has changed in place since the message was decoded."""
        changed, refilled = [], []
        for number, before in self._bytes_before.items():
            now = bytes(bytes_of(self._storages[number]))
            if now != before:
                changed.append([number, answer.blob(now)])
        for number, before in self._before.items():
            value = self.objects[number]
            if isinstance(value, torch.Generator):
                if not torch.equal(value.get_state(), before):
                    refilled.append([number, answer.state_of(value)])
            elif not is_same(snapshot(value), before):
                refilled.append([number, answer.items(value)])
        return {"changed": changed, "refilled": refilled}

    def apply_changes(self, message: dict[str, Any]) -> bool:
        """Make the changes that a call has made to what it was given.

        Returns:
            Whether there were any, but for generators that were drawn from.
        """
        changed = False
        for number, blob in message.get("changed", []):
            self._restore(self.sent.storages[number], self.blobs[blob])
            changed = True
        for number, items in message.get("refilled", []):
            value = self.sent.objects[number]
            if isinstance(value, torch.Generator):
                self.set_state(value, items)
            elif isinstance(value, CONTAINERS):
                self.fill(value, items)
                changed = True
        return changed

    def _restore(self, place: Storage, data: bytearray) -> None:
        if len(data) != place.storage.nbytes():
            raise WireError("a tensor's memory has changed its size")
        new = torch.frombuffer(data, dtype=torch.uint8)
        torch.empty(0, dtype=torch.uint8).set_(place.storage).copy_(new)
        if place.copy_of is not None:
            original = place.copy_of
            flat = torch.empty(0, dtype=original.dtype).set_(place.storage)
            original.copy_(flat.view(original.shape))


def bytes_of(storage: torch.UntypedStorage) -> Any:
    """Return a view of the bytes of a storage."""
    if not storage.nbytes():
        return b""  # a view of nothing can't be cast
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy()


def snapshot(container: Any) -> list[Any]:
    """List what a container holds, to compare it by identity."""
    if isinstance(container, dict):
        return [item for pair in container.items() for item in pair]
    return list(container)


def is_same(one: list[Any], other: list[Any]) -> bool:
    """Say whether two lists hold the same objects."""
    return len(one) == len(other) and all(
        a is b for a, b in zip(one, other, strict=True)
    )


def check_bounds(
    storage: torch.UntypedStorage,
    itemsize: int,
    size: list[int],
    stride: list[int],
    offset: int,
) -> None:
    """Refuse a tensor that reaches beyond its storage, or is too large.

    Raises:
        WireError: says which of the two.
    """
    if len(size) > MOST_DIMENSIONS or len(size) != len(stride):
        raise WireError("a tensor has impossible dimensions")
    if min([offset, *size, *stride]) < 0:
        raise WireError("a tensor has a negative size")
    if prod(size) * itemsize > MOST_BYTES:
        raise WireError(f"a tensor of more than {MOST_BYTES >> 20} MiB")
    last = offset + sum(
        (n - 1) * step for n, step in zip(size, stride, strict=True)
    )
    if prod(size) and (last + 1) * itemsize > storage.nbytes():
        raise WireError("a tensor reaches beyond its memory")


READS = (
    "again array bytes complex device dict dtype ellipsis generator int list "
    "meta object own range ref set size slice tensor tracked tuple"
)
# What stands first in a value's JSON, and who reads it.
KINDS = {name: getattr(Decoder, f"_{name}") for name in READS.split()}
