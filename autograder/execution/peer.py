"""Call functions of another process, and be called by it.

A request names an object of the other side and what to do with it. While it
is being answered, the other side may send requests of its own: a function
that was passed as an argument is called back. Tensors are passed by value;
what the call has changed in place is changed on this side too when it ends.
Gradients flow: a call is one node of this side's graph, whose backward asks
the other side for its part.
"""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from autograder.execution import proxies
from autograder.execution.errors import describe, rebuild
from autograder.execution.proxies import SPECIAL, Remote, RemoteModule
from autograder.execution.values import Decoder, Encoder
from autograder.execution.wire import (
    Channel,
    DeadlineError,
    GoneError,
    Message,
    WireError,
    well_formed,
)
from contextlab import spies

MOST_OBJECTS = 100_000


class Peer:
    """One side of the conversation.

    Args:
        channel: leads to the other side.

    Attributes:
        obeys: whether requests may start spies and set the random state.
        changed: whether a call has changed in place what it was given.
    """

    obeys = True

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.changed = False
        self._objects: list[Any] = []  # of this side, by handle
        self._handles: dict[int, int] = {}
        self._proxies: weakref.WeakValueDictionary[int, Any] = (
            weakref.WeakValueDictionary()
        )
        self._modules: weakref.WeakSet[RemoteModule] = weakref.WeakSet()
        self._graphs: list[tuple[list[Tensor], list[Tensor]]] = []

    # ------------------------------------------------ Asking the other side
    def call(self, handle: int, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a special method of an object of the other side."""
        return self._ask("call", handle, name, args, kwargs)

    def get(self, handle: int, name: str) -> Any:
        """Return an attribute of an object of the other side."""
        return self._ask("get", handle, name, (), {})

    def set(self, handle: int, name: str, value: Any) -> None:
        """Set an attribute of an object of the other side."""
        self._ask("set", handle, name, (value,), {})

    def _ask(
        self, do: str, handle: int, name: str, args: tuple, kwargs: dict
    ) -> Any:
        with spies.asleep():
            exchange = _Exchange(self, do, handle, name, args, kwargs)
            leaves = exchange.leaves
            if leaves:
                tracked = _Call.apply(exchange, *leaves)
            else:
                tracked = exchange.run()
            return exchange.result(tracked)

    def exchange(self, message: Message, blobs: list) -> tuple[Message, list]:
        """Send a request, answer what comes between, return the answer."""
        self.channel.send(message, blobs)
        while True:
            message, blobs = self.channel.receive()
            if "do" not in message:
                return message, blobs
            self._answer(message, blobs)

    # --------------------------------------------- Answering the other side
    def serve(self) -> None:
        """Answer requests until the other side is gone."""
        while True:
            try:
                message, blobs = self.channel.receive()
            except GoneError:
                return
            self._answer(message, blobs)

    def _answer(self, message: Message, blobs: list) -> None:
        decoder = Decoder(self, blobs)
        try:
            answer, encoder = self._perform(message, decoder)
        except (WireError, DeadlineError):
            raise
        except BaseException as error:  # whatever a student's code raises
            encoder = Encoder(self, decoder)
            answer = {"error": self.describe_error(error)}
            answer |= decoder.changes(encoder)
        answer |= encoder.finish()
        try:
            self.channel.send(answer, encoder.blobs)
        except WireError as error:  # too large: say so instead
            self.channel.send({"error": describe(error)})

    def _perform(
        self, message: Message, decoder: Decoder
    ) -> tuple[Message, Encoder]:
        if message["do"] == "backward":
            return self._backward(message, decoder)
        decoder.start(message)
        args = [decoder.decode(arg) for arg in message["args"]]
        kwargs = {k: decoder.decode(v) for k, v in message["kwargs"].items()}
        modules = self._take_states(message, decoder)
        decoder.remember(message)
        wanted = decoder.leaves + [
            proxies.tensors_of(modules[handle])[name]
            for handle, name in message.get("wanted", [])
            if handle in modules
        ]
        before = {
            handle: {
                name: tensor.data.clone()
                for name, tensor in proxies.tensors_of(module).items()
            }
            for handle, module in modules.items()
        }
        with self._mode(message, decoder) as active:
            target = self._objects[int(message["of"])]
            value = self._do(message["do"], target, message["name"], args,
                             kwargs)  # fmt: skip
        encoder = Encoder(self, decoder, bool(wanted))
        answer = {"value": encoder.encode(value)}
        answer |= self._tracked(encoder, wanted)
        states = {
            handle: proxies.changed_state(module, before[handle], encoder)
            for handle, module in modules.items()
        }
        answer["states"] = [[h, s] for h, s in states.items() if s]
        answer["spies"] = [spy.seen() for spy in active]
        return answer | decoder.changes(encoder), encoder

    def _do(
        self, do: str, target: Any, name: str, args: list, kwargs: dict
    ) -> Any:
        """Do what a request asks for."""
        if do == "get":
            return getattr(target, name)
        if do == "set":
            return setattr(target, name, *args)
        return SPECIAL[name](target, *args, **kwargs)

    def _tracked(self, encoder: Encoder, wanted: list[Tensor]) -> Message:
        """Keep the graph, and send the numbers of what it ends in."""
        outputs = list(encoder.tracked)
        self._graphs.append((outputs, wanted))
        encoder.differentiate = False
        return {
            "call": len(self._graphs) - 1,
            "tracked": [encoder.encode(x.detach()) for x in outputs],
        }

    def _backward(
        self, message: Message, decoder: Decoder
    ) -> tuple[Message, Encoder]:
        decoder.start(message)
        outputs, wanted = self._graphs[int(message["call"])]
        given = [decoder.decode(g) for g in message["args"]]
        pairs = zip(outputs, given, strict=True)
        used = [(out, grad) for out, grad in pairs if grad is not None]
        with torch.enable_grad():
            grads = torch.autograd.grad(
                [out for out, _ in used],
                wanted,
                [grad for _, grad in used],
                allow_unused=True,
                retain_graph=True,
            )
        encoder = Encoder(self, decoder)
        return {"grads": [encoder.encode(grad) for grad in grads]}, encoder

    @contextmanager
    def _mode(self, message: Message, decoder: Decoder) -> Iterator[list]:
        """Compute as the other side would: with gradients or without."""
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(bool(message["grad"])))
            active = []
            if self.obeys:
                torch.set_default_dtype(getattr(torch, message["dtype"]))
                if (state := message.get("random")) is not None:
                    blob = decoder.blobs[state]
                    torch.set_rng_state(
                        torch.frombuffer(blob, dtype=torch.uint8).clone()
                    )
                wanted = spies.like(message.get("spies", []))
                active = stack.enter_context(wanted)
            yield active

    def _take_states(
        self, message: Message, decoder: Decoder
    ) -> dict[int, nn.Module]:
        """Bring the modules of this side to what the other side holds."""
        modules = {}
        for handle, found in message.get("states", []):
            module = self._objects[int(handle)]
            if isinstance(module, nn.Module) and self.may_change(module):
                proxies.load(module, found, decoder)
                modules[handle] = module
        return modules

    def may_change(self, module: nn.Module) -> bool:
        """Say whether the other side may set a module's numbers."""
        return True

    def describe_error(self, error: BaseException) -> Message:
        """Put an exception of this side into JSON."""
        return describe(error)

    # ------------------------------------------------------- Objects, proxies
    def handle(self, value: Any) -> int:
        """Return the handle by which the other side knows an object."""
        if id(value) not in self._handles:
            if len(self._objects) >= MOST_OBJECTS:
                raise WireError("more objects than can be kept")
            self._handles[id(value)] = len(self._objects)
            self._objects.append(value)
        return self._handles[id(value)]

    def lend(self, value: Any, encoder: Encoder) -> Message:
        """Describe what is no data, for the other side to refer to."""
        if isinstance(value, Remote | RemoteModule) and value._peer is self:
            return {"own": value._handle}
        if isinstance(value, nn.Module) and self.shows(value):
            return {"object": proxies.describe_module(self, value, encoder)}
        description = {
            "handle": self.handle(value),
            "type": type(value).__name__,
            "special": proxies.special_names(value),
        }
        return {"object": description}

    def shows(self, module: nn.Module) -> bool:
        """Say whether the other side may see what a module consists of."""
        return True

    def proxy(self, description: Message, decoder: Decoder) -> Any:
        """Return what stands here for an object of the other side."""
        handle = int(description["handle"])
        known = self._proxies.get(handle)
        if known is None:
            known = proxies.make(self, description, decoder)
            self._proxies[handle] = known
            if isinstance(known, RemoteModule):
                self._modules.add(known)
        return known

    def own(self, handle: int) -> Any:
        """Return an object of this side that the other side refers to."""
        return self._objects[handle]

    def modules(self) -> dict[int, RemoteModule]:
        """Return the modules of the other side that are in use here."""
        return {module._handle: module for module in self._modules}


class _Exchange:
    """One request and its answer."""

    def __init__(
        self,
        peer: Peer,
        do: str,
        handle: int,
        name: str,
        args: tuple,
        kwargs: dict,
    ) -> None:
        self.peer = peer
        self.grad = torch.is_grad_enabled()
        self.encoder = encoder = Encoder(peer, differentiate=self.grad)
        self.modules = peer.modules()
        message = {
            "do": do,
            "of": handle,
            "name": name,
            "args": [encoder.encode(arg) for arg in args],
            "kwargs": {k: encoder.encode(v) for k, v in kwargs.items()},
            "grad": self.grad,
            "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
            "random": encoder.blob(torch.get_rng_state().numpy()),
            "spies": spies.described(),
            "states": [
                [h, proxies.state(module, encoder)]
                for h, module in self.modules.items()
            ],
        }
        trained = [
            (h, name, p)
            for h, module in self.modules.items()
            for name, p in module.named_parameters()
            if p.requires_grad and self.grad
        ]
        message["wanted"] = [[h, name] for h, name, _ in trained]
        self.leaves = encoder.leaves + [p for _, _, p in trained]
        self.message = message | encoder.finish()

    def run(self) -> list[Tensor]:
        """Send the request; return the tensors that a gradient goes through.

        Raises:
            RemoteError: what the other side has raised.
        """
        active = list(spies.Spy.active)
        answer, blobs = self.peer.exchange(self.message, self.encoder.blobs)
        self.answer = answer
        self.decoder = Decoder(self.peer, blobs, self.encoder)
        with well_formed():
            tracked = self._take_in(answer, active)
            error = rebuild(answer["error"]) if "error" in answer else None
        if error:
            raise error
        return tracked

    def _take_in(self, answer: Message, active: list) -> list[Tensor]:
        """Make the changes that the answer brings."""
        decoder = self.decoder
        decoder.start(answer)
        self.peer.changed |= decoder.apply_changes(answer)
        for handle, found in answer.get("states", []):
            if handle in self.modules:
                proxies.load(self.modules[handle], found, decoder)
        for spy, seen in zip(active, answer.get("spies", []), strict=False):
            spy.add(seen)
        return [decoder.decode(x) for x in answer.get("tracked", [])]

    def result(self, tracked: list[Tensor]) -> Any:
        """Return the value of the answer, with its tensors in the graph."""
        self.decoder.tracked = list(tracked)
        with well_formed():
            value = self.decoder.decode(self.answer.get("value"))
        if self.peer.obeys:  # a spy that the other side has sent looks here
            stored = self.encoder.storages
            spies.received(value, {x.storage.data_ptr() for x in stored})
        return value

    def backward(self, grads: tuple[Tensor | None, ...]) -> list:
        """Ask the other side for the gradients by the leaves."""
        encoder = Encoder(self.peer)
        message = {
            "do": "backward",
            "call": self.answer["call"],
            "args": [encoder.encode(grad) for grad in grads],
        }
        with spies.asleep():
            answer, blobs = self.peer.exchange(
                message | encoder.finish(), encoder.blobs
            )
            decoder = Decoder(self.peer, blobs, encoder)
            if "error" in answer:
                raise rebuild(answer["error"])
            with well_formed():
                decoder.start(answer)
                found = [decoder.decode(x) for x in answer["grads"]]
        if len(found) != len(self.leaves):
            raise WireError("gradients are missing")
        return found


class _Call(torch.autograd.Function):
    """A call of the other side, as a node of this side's graph."""

    @staticmethod
    def forward(ctx, exchange, *leaves):
        ctx.exchange = exchange
        ctx.set_materialize_grads(False)
        outputs = exchange.run()
        ctx.mark_non_differentiable(
            *(x for x in outputs if not x.is_floating_point())
        )
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        return None, *ctx.exchange.backward(grads)
