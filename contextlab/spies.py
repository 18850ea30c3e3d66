"""Watch what code does with PyTorch, wherever it runs.

A spy is a ``with`` block. The autograder calls a student's code in another
process: there it starts the spies that are active here, and brings back what
they have seen. So a check reads the same whichever way it runs.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar
from unittest.mock import patch

from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SOFTMAX = {
    "_log_softmax",
    "_safe_softmax",
    "_softmax",
    "log_softmax",
    "softmax",
}
FORBIDDEN = {
    "softmax": (
        "This calls PyTorch's own softmax. Build it from exp and sums: the "
        "exercise is to see what is inside."
    ),
    "autograd": (
        "This calls autograd. Write the gradients out by hand: the exercise "
        "is the backward pass itself."
    ),
}


class Spy:
    """What all spies share; used as a context manager.

    Attributes:
        active: the spies whose blocks are being executed, outermost first.
        settings: what a spy of the same kind is made with elsewhere.
    """

    active: ClassVar[list["Spy"]] = []
    asleep: ClassVar[int] = 0

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def __enter__(self) -> "Spy":
        self._stack = ExitStack()
        self._stack.enter_context(self.watch())
        Spy.active.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        Spy.active.remove(self)
        self._stack.close()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch until the block ends."""
        yield

    def seen(self) -> Any:
        """Return what was seen, as JSON."""

    def add(self, seen: Any) -> None:
        """Add what a spy of the same kind has seen elsewhere."""

    def receive(self, tensors: list[Tensor]) -> None:
        """Look at tensors that have come from another process."""


class Forbid(Spy):
    """Make something that an exercise is to do by hand raise.

    Args:
        what: ``softmax`` or ``autograd``.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what=what)
        self.message = FORBIDDEN[what]

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Refuse what is forbidden, under any of its names."""
        if self.settings["what"] == "softmax":
            with _Operators(self._refuse_softmax):
                yield
            return
        # backward(), grad() and vjp() end up in the first, however they were
        # imported, and forward-mode differentiation in the second.
        with (
            patch("torch.autograd._engine_run_backward", self._refuse),
            patch("torch.autograd.forward_ad.make_dual", self._refuse),
        ):
            yield

    def _refuse(self, *args: object, **kwargs: object) -> None:
        raise AssertionError(self.message)

    def _refuse_softmax(self, name: str, given: list, run: Any) -> Any:
        if name in SOFTMAX:
            self._refuse()
        return run()


class Watch(Spy):
    """Count the operators that are called, and measure what they make.

    Attributes:
        calls: how often each of PyTorch's operators was called, by its name
            in ``torch.ops.aten``.
        largest: the number of bytes of the largest tensor that was made. A
            view of another tensor is not made, whatever its shape.
        held: the most bytes of the tensors made that existed at once; what
            a function of another process returned counts as made.
        copied: the bytes that ``copy_`` has written, which is what a deep
            copy and an assignment to a part of a tensor come down to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.largest = 0
        self.held = 0
        self.copied = 0
        self._made: list[tuple[StorageWeakRef, int]] = []

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Look at every operator's name and at its outputs."""
        with _Operators(self._look):
            yield

    def _look(self, name: str, given: list, run: Any) -> Any:
        old = {_memory(x).data_ptr() for x in given if isinstance(x, Tensor)}
        made = run()
        self.calls[name] += 1
        if name == "copy_":
            self.copied += made.nbytes
        for output in tree_leaves(made):
            if isinstance(output, Tensor):
                memory = _memory(output)
                if memory.data_ptr() not in old:
                    self.largest = max(self.largest, memory.nbytes())
                    self._hold(memory)
        self._sum_up()
        return made

    def receive(self, tensors: list[Tensor]) -> None:
        """Count what has come from another process as held."""
        for tensor in tensors:
            self._hold(_memory(tensor))
        self._sum_up()

    def _hold(self, memory: UntypedStorage) -> None:
        self._made.append((StorageWeakRef(memory), memory.nbytes()))

    def _sum_up(self) -> None:
        self._made = [(ref, n) for ref, n in self._made if not ref.expired()]
        self.held = max(self.held, sum(n for _, n in self._made))

    def seen(self) -> Any:
        """Return the calls and the sizes, as JSON."""
        return {
            "calls": dict(self.calls),
            "largest": self.largest,
            "held": self.held,
            "copied": self.copied,
        }

    def add(self, seen: Any) -> None:
        """Add the calls made elsewhere."""
        self.calls.update({str(k): int(n) for k, n in seen["calls"].items()})
        self.largest = max(self.largest, int(seen["largest"]))
        self.held = max(self.held, int(seen["held"]))
        self.copied += int(seen["copied"])


KINDS = {kind.__name__: kind for kind in (Forbid, Watch)}


class _Operators(TorchDispatchMode):
    """Show every operator to a spy, wherever in PyTorch it is called from."""

    def __init__(self, look: Any) -> None:
        super().__init__()
        self.look = look

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Else PyTorch imports its compiler to skip this: two seconds.
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        def run():
            return func(*args, **(kwargs or {}))

        if Spy.asleep:
            return run()
        given = tree_leaves((args, kwargs))
        return self.look(func.overloadpacket.__name__, given, run)


def _memory(tensor: Tensor) -> UntypedStorage:
    return tensor.untyped_storage()


@contextmanager
def asleep() -> Iterator[None]:
    """Let the spies look away from what the machinery does itself."""
    Spy.asleep += 1
    try:
        yield
    finally:
        Spy.asleep -= 1


def received(value: Any, known: set[int]) -> None:
    """Show the spies the tensors of a value that has come from elsewhere.

    Args:
        value: what a function of another process has returned.
        known: where the memory begins that was here before.
    """
    new = [
        leaf
        for leaf in tree_leaves(value)
        if isinstance(leaf, Tensor) and _memory(leaf).data_ptr() not in known
    ]
    for spy in Spy.active:
        spy.receive(new)


@contextmanager
def like(spies: list[tuple[str, dict[str, Any]]]) -> Iterator[list[Spy]]:
    """Start spies of the same kinds as some that are active elsewhere."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(KINDS[kind](**settings))
            for kind, settings in spies
        ]


def described() -> list[tuple[str, dict[str, Any]]]:
    """Describe the active spies, as ``like`` takes it."""
    return [(type(spy).__name__, spy.settings) for spy in Spy.active]
