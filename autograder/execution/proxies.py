"""Objects that stand for objects of the other process."""

import operator
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from autograder.execution.values import Decoder, Encoder

if TYPE_CHECKING:
    from autograder.execution.peer import Peer

# What Python looks up in an object's type. Comparisons are not among them: an
# object whose __eq__ is always True shall equal nothing.
SPECIAL: dict[str, Callable] = {
    "__call__": lambda obj, *args, **kwargs: obj(*args, **kwargs),
    "__len__": len,
    "__bool__": bool,
    "__getitem__": operator.getitem,
    "__setitem__": operator.setitem,
    "__delitem__": operator.delitem,
    "__contains__": operator.contains,
    "__iter__": iter,
    "__next__": next,
    "__enter__": lambda obj: obj.__enter__(),
    "__exit__": lambda obj, *error: obj.__exit__(*error),
    "__instancecheck__": lambda cls, obj: isinstance(obj, cls),
    "__deepcopy__": lambda obj, memo: deepcopy(obj),
}
CONTAINERS = {
    kind.__name__: kind
    for kind in (nn.ModuleList, nn.ModuleDict, nn.Sequential)
}


def special_names(value: Any) -> list[str]:
    """Return the special methods that an object's type has."""
    names = [n for n in SPECIAL if hasattr(type(value), n)]
    if not isinstance(value, type) and "__instancecheck__" in names:
        names.remove("__instancecheck__")
    return names


class Remote:
    """An object of the other process."""

    def __init__(self, peer: "Peer", handle: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_handle", handle)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self._peer.get(self._handle, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.set(self._handle, name, value)

    def __deepcopy__(self, memo: dict) -> Any:
        return self._peer.call(self._handle, "__deepcopy__", {})

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class RemoteModule(nn.Module):
    """A ``torch.nn.Module`` of the other process.

    Its parameters and buffers are here: they are sent along with each call
    and brought back where a call has changed them. Its forward is there.
    """

    def __init__(self, peer: "Peer", handle: int) -> None:
        super().__init__()
        self.__dict__["_peer"] = peer
        self.__dict__["_handle"] = handle

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module of the other process."""
        return self._peer.call(self._handle, "__call__", *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):
                raise
            return self._peer.get(self._handle, name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = name in self._parameters or name in self._buffers
        own = own or name == "training" or name.startswith("_")
        if own or isinstance(value, Tensor | nn.Module):
            super().__setattr__(name, value)
        else:
            self._peer.set(self._handle, name, value)

    def __deepcopy__(self, memo: dict) -> Any:
        return self._peer.call(self._handle, "__deepcopy__", {})


def make(
    peer: "Peer", description: dict[str, Any], decoder: Decoder
) -> Remote | RemoteModule:
    """Return a proxy of the kind that the description asks for."""
    if "parameters" in description:
        return make_module(peer, description, decoder)
    kind = with_special(Remote, description)
    return kind(peer, int(description["handle"]))


def with_special(base: type, description: dict[str, Any]) -> type:
    """Return a kind of proxy that has the special methods of an object."""
    name = str(description.get("type"))
    own = {n for kind in base.__mro__ for n in vars(kind)}
    special = [
        n
        for n in description.get("special", [])
        if n in SPECIAL and n not in own
    ]
    return type(
        name if name.isidentifier() else "object",
        (base,),
        {n: _forward(n) for n in special},
    )


def _forward(name: str) -> Callable:
    def method(self: Remote, *args: Any, **kwargs: Any) -> Any:
        return self._peer.call(self._handle, name, *args, **kwargs)

    method.__name__ = name
    return method


# ------------------------------------------------------------------- Modules
def describe_module(
    peer: "Peer", module: nn.Module, encoder: Encoder
) -> dict[str, Any]:
    """Describe a module, its parameters and what it consists of."""
    description = {
        "handle": peer.handle(module),
        "type": type(module).__name__,
        "special": special_names(module),
        "training": bool(module.training),
        "parameters": [
            [name, encoder.encode(p.data), bool(p.requires_grad)]
            for name, p in module._parameters.items()
            if p is not None
        ],
        "buffers": [
            [name, encoder.encode(b.data)]
            for name, b in module._buffers.items()
            if b is not None
        ],
    }
    children = [
        [name, describe_module(peer, child, encoder)]
        for name, child in module._modules.items()
        if child is not None
    ]
    return description | {"children": children}


def make_module(
    peer: "Peer", description: dict[str, Any], decoder: Decoder
) -> nn.Module:
    """Return a module with the parameters and children of another's."""
    if container := CONTAINERS.get(description["type"]):
        module = container()
    else:
        kind = with_special(RemoteModule, description)
        module = kind(peer, int(description["handle"]))
    # Not by register_parameter: it asks first whether the name is taken.
    for name, encoded, wants in description["parameters"]:
        parameter = nn.Parameter(decoder.decode(encoded), bool(wants))
        module._parameters[str(name)] = parameter
    for name, encoded in description["buffers"]:
        module._buffers[str(name)] = decoder.decode(encoded)
    for name, child in description["children"]:
        module._modules[str(name)] = make_module(peer, child, decoder)
    module.training = bool(description["training"])
    return module


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers of a module, by their names."""
    return dict([*module.named_parameters(), *module.named_buffers()])


def state(module: nn.Module, encoder: Encoder) -> dict[str, Any]:
    """Write down a module's numbers, which of them are to be trained, modes.

    Returns:
        JSON for ``load``.
    """
    return {
        "tensors": [
            [name, encoder.encode(tensor.data), bool(tensor.requires_grad)]
            for name, tensor in tensors_of(module).items()
        ],
        "training": [
            name for name, part in module.named_modules() if part.training
        ],
    }


def load(module: nn.Module, found: dict[str, Any], decoder: Decoder) -> None:
    """Give a module the numbers and modes that ``state`` has written."""
    own = tensors_of(module)
    for name, encoded, wants in found["tensors"]:
        value, target = decoder.decode(encoded), own.get(name)
        if target is None:
            continue
        if decoder.shares_memory(value):
            target.data = value
        elif (value.shape, value.dtype) == (target.shape, target.dtype):
            target.data.copy_(value)
        else:
            target.data = value.clone()
        target.requires_grad_(bool(wants))
    training = set(found.get("training", []))
    for name, part in module.named_modules():
        part.training = name in training


def changed_state(
    module: nn.Module, before: dict[str, Tensor], encoder: Encoder
) -> dict[str, Any] | None:
    """Write down a module's state if it is not what it was."""
    now = tensors_of(module)
    same = now.keys() == before.keys() and all(
        same_bytes(tensor.data, before[name]) for name, tensor in now.items()
    )
    return None if same else state(module, encoder)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Say whether two tensors hold the same bits; NaN equals NaN."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    if one.is_meta:
        return True
    one, other = (
        x.contiguous().reshape(-1).view(torch.uint8) for x in (one, other)
    )
    return torch.equal(one, other)
