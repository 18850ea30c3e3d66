"""Calls across the boundary: they work as if the code were here.

A submission defines functions and classes; the tests use them from outside,
in the real sandbox.
"""

import math
import random
import textwrap
import time
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from autograder import outside
from autograder.execution import sandbox
from autograder.execution.launch import start_nursery
from autograder.execution.values import Decoder, Encoder
from autograder.execution.wire import GoneError, WireError
from autograder.station import cell
from contextlab.checks import forbid_autograd, forbid_softmax
from contextlab.spies import Watch

SOURCE = """
import os
import torch
from torch import nn
from torch.nn import functional as F


def same(*args, **kwargs):
    return (args, kwargs) if kwargs else args


def is_same(a, b):
    return a is b


def rotate(x, by=1, *, scale):
    return x.roll(by) * scale


def zero(x):
    x.zero_()


def gather(draw, size, unused):
    return len([draw(size) for _ in range(3)])


def rows(x):
    return x[1:], x


def weights(q, k, unused):
    return (q @ k.mT).softmax(-1), (q > 0), q.sum()


def count(n):
    for i in range(n):
        yield torch.full((2,), float(i))


def twice(f, x):
    return f(f(x))


def update(state, names):
    state["b"] = state.pop("a") * 2
    names.append("b")


def draw(generator=None):
    return torch.rand(3, generator=generator)


def softmax(x):
    return torch.softmax(x, -1)


def differentiate(x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(x.square().sum(), x)[0]


def untiled(q, k):
    return (q @ k.mT).sum()


class TooShort(ValueError):
    pass


def complain(what):
    if what == "own":
        raise TooShort("three are needed")  # the line
    if what == "exit":
        raise SystemExit(3)
    if what == "index":
        return [][1]
    if what == "memory":
        raise MemoryError("no room")
    if what == "unicode":
        return b"\\xff".decode()
    if what == "escape":
        raise RuntimeError("\\x1b[2Jgone\\a")
    os._exit(5)


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width
        self.inner = nn.Linear(width, width)
        self.more = nn.ModuleDict({"out": nn.Linear(width, width)})
        self.drop = nn.Dropout(0.5)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, *, twice=False):
        self.calls += 1
        x = self.drop(self.inner(x).relu())
        return self.more["out"](x), x

    def load(self, state):
        self.inner.weight.data = state["w"]
        with torch.no_grad():
            self.inner.bias.copy_(state["b"])


class ModuleCache(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("held", torch.zeros(0))

    def __len__(self):
        return len(self.held)

    def update(self, x):
        self.held = torch.cat([self.held, x])
        return self.held


class ListCache(list):
    def update(self, x):
        self.append(x)
        return torch.cat(list(self))


class Rows(list):
    pass


def more_rows(rows):
    return Rows([*rows, 3])


class Cache:
    size = 4

    def __init__(self):
        self.items = []

    def append(self, x):
        self.items.append(x)
        return len(self.items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]

    def __contains__(self, x):
        return any(x is y for y in self.items)

    def __iter__(self):
        return iter(self.items)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.items.clear()


class Liar:
    def __eq__(self, other):
        return True

    __hash__ = None


class Number(float):
    def __eq__(self, other):
        return True

    __hash__ = None


class Lying(torch.Tensor):
    @property
    def shape(self):
        return torch.Size([1])

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return True


def lies():
    tensor = torch.zeros(2, 3).as_subclass(Lying)
    return Liar(), Number(2.0), tensor


def huge(kind):
    if kind == "expanded":
        return torch.zeros(1).expand(100_000, 100_000)
    if kind == "large":
        return torch.zeros(20_000_000)
    if kind == "text":
        return "x" * 10_000_000
    deep = []
    for _ in range(100_000):
        deep = [deep]
    return deep


def snoop(f):
    found = []
    for name in ("__globals__", "__code__", "__closure__", "func_globals"):
        try:
            found.append(getattr(f, name))
        except AttributeError:
            pass
    return found


def peek(thing):
    found = []
    for name in ("secret", "_secret", "weight", "seed"):
        if hasattr(thing, name):
            found.append(name)
    return found


def swallow(f):
    try:
        f()
    except BaseException as error:
        return str(error)


def forge():
    for fd in os.listdir("/proc/self/fd"):
        try:
            os.write(int(fd), b"\\0\\0\\0\\7passed!" * 9)
        except OSError:
            pass
"""


@pytest.fixture(scope="module")
def submission():
    """Run the source above as somebody's submission."""
    process, nursery = start_nursery()
    level = sandbox.best_level()
    made = outside.ForkedSubmission([cell("cell 1", SOURCE)], nursery, level)
    made.start()
    assert made.errors == {}
    yield made
    made.stop()
    nursery.close()
    process.wait(10)


@pytest.fixture
def names(submission):
    """Look up what the submission defines, in a process of its own."""
    peer = submission.exercise()
    peer.channel.deadline = time.monotonic() + 60
    yield peer.names
    peer.channel.close()


VALUES = [
    None, True, 3, -(10**30), 2.5, -math.inf, "text \ud800 \x00", b"\x00\xff",
    2 + 3j, [], [1, [2.0, "x"]], {"a": [1], 2: None, (1, 2): True},
    {1, 2}, (), slice(1, None, 2), range(2, 9, 3), ..., torch.Size([2, 3]),
    torch.float16, torch.device("cpu"), np.arange(6.0).reshape(2, 3),
    np.float32(0.5), np.array(["2"]).astype("int64"),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_went(names, value):
    (back,) = deepcopy(names("same"))(value)
    assert type(back) is type(value)
    assert (
        np.array_equal(back, value)
        if isinstance(value, np.ndarray)
        else back == value
    )


TENSORS = {
    "plain": torch.ones(2, 3),
    "a view": torch.arange(20.0, dtype=torch.float64).view(4, 5).T[1:, ::2],
    "no dimensions": torch.tensor(True),
    "empty": torch.zeros(0, 3),
    "whole numbers": torch.tensor([1, 2], dtype=torch.int8),
    "half as wide": torch.arange(3).to(torch.bfloat16),
    "conjugated": torch.full((3,), 1 + 2j).conj(),
    "expanded": torch.zeros(1).expand(3, 4),
    "without numbers": torch.empty(2, device="meta"),
    "little of a large storage": torch.arange(3e6)[10:14],
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_tensors_come_back_as_they_went(names, tensor):
    clone = names("same")(tensor.clone())[0]
    back = names("same")(tensor)[0]
    assert back is tensor
    assert (clone.shape, clone.dtype) == (tensor.shape, tensor.dtype)
    assert clone.is_meta or torch.equal(clone, tensor)


def test_identity_and_keywords(names):
    x = torch.randn(4)
    assert names("is_same")(x, x)
    assert not names("is_same")(x, x.clone())
    back = names("rotate")(x, scale=2.0, by=-1)
    assert torch.equal(back, x.roll(-1) * 2)
    with pytest.raises(TypeError, match="scale"):
        names("rotate")(x)
    f = names("same")
    assert names("is_same")(f, f)


def test_changes_in_place_are_seen(names):
    x = torch.ones(4, 3)
    view = x[1]
    names("zero")(view)
    assert torch.equal(x.sum(1), torch.tensor([3.0, 0.0, 3.0, 3.0]))
    large = torch.ones(3_000_000)
    names("zero")(large[5:7])
    assert large.sum() == 3_000_000 - 2
    state, listed = {"a": x}, ["a"]
    names("update")(state, listed)
    assert list(state) == ["b"]
    assert listed == ["a", "b"]
    assert torch.equal(state["b"], x * 2)


def test_views_share_memory_with_what_was_given(names):
    x = torch.randn(4, 3)
    tail, whole = names("rows")(x)
    assert whole is x
    assert tail.data_ptr() == x[1:].data_ptr()
    tail.zero_()
    assert x[1:].abs().sum() == 0


def test_gradients_flow_through(names):
    q, k = torch.randn(2, 3, 4, dtype=torch.float64).requires_grad_()
    unused = torch.zeros(2, requires_grad=True)
    q.retain_grad()
    attended, positive, total = names("weights")(q, k * 2, unused)
    assert positive.dtype == torch.bool
    loss = attended.square().sum() + 3 * total
    got = torch.autograd.grad(loss, [q, k, unused], allow_unused=True)
    right = (q @ (k * 2).mT).softmax(-1).square().sum() + 3 * q.sum()
    expected = torch.autograd.grad(right, [q, k])
    assert got[2] is None
    for one, other in zip(got[:2], expected, strict=True):
        assert torch.allclose(one, other, atol=1e-12)
    with torch.no_grad():
        assert not names("weights")(q, k, unused)[0].requires_grad


def test_generators_and_the_random_state(names):
    assert [x[0].item() for x in names("count")(3)] == [0.0, 1.0, 2.0]
    torch.manual_seed(3)
    first = names("draw")()
    state = torch.get_rng_state()
    torch.manual_seed(3)
    assert torch.equal(first, torch.rand(3))
    torch.set_rng_state(state)  # what the other side drew didn't move ours
    torch.manual_seed(3)
    assert torch.equal(state, torch.get_rng_state())
    mine, theirs = (torch.Generator().manual_seed(1) for _ in range(2))
    for _ in range(2):
        got = names("draw")(theirs)
        assert torch.equal(got, torch.rand(3, generator=mine))


def test_functions_are_called_back(names):
    calls = []

    def double(x):
        calls.append(x.clone())
        return x * 2

    x = torch.ones(2, requires_grad=True)
    names("twice")(double, x).sum().backward()
    assert [c.tolist() for c in calls] == [[1.0, 1.0], [2.0, 2.0]]
    assert torch.equal(x.grad, torch.full((2,), 4.0))


@pytest.mark.parametrize(
    ("what", "kind", "says"),
    [
        ("own", ValueError, "three are needed"),
        ("index", IndexError, "list index out of range"),
        ("memory", MemoryError, "no room"),
        ("unicode", ValueError, "can't decode"),
        ("escape", RuntimeError, "^�.2Jgone�$"),
    ],
)
def test_exceptions_are_caught_by_the_same_clause(names, what, kind, says):
    with pytest.raises(kind, match=says) as caught:
        names("complain")(what)
    if what == "own":
        assert type(caught.value).__name__ == "TooShort"
        assert caught.value.line.endswith("# the line")


def test_the_end_of_a_process_is_seen(names):
    with pytest.raises(Exception, match="3") as caught:
        names("complain")("exit")
    assert not isinstance(caught.value, SystemExit)
    with pytest.raises(GoneError):
        names("complain")("leave")


def module(source, name):
    """Return what the source defines, in this process."""
    space = {}
    exec(source, space)
    return space[name]


def test_modules_are_trained_from_here(names):
    ours, theirs = names("Layer")(4).double(), module(SOURCE, "Layer")(4)
    theirs.double().load_state_dict(ours.state_dict())
    assert isinstance(ours, nn.Module)
    assert [n for n, _ in ours.named_parameters()] == [
        n for n, _ in theirs.named_parameters()
    ]
    assert ours.width == 4
    ours.eval()
    theirs.eval()
    optimizers = [
        torch.optim.SGD(m.parameters(), lr=0.1) for m in (ours, theirs)
    ]
    x = torch.randn(8, 4, dtype=torch.float64)
    for _ in range(3):
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            layer(x, twice=True)[0].square().mean().backward()
            optimizer.step()
    for got, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(got, right, atol=1e-12)
    assert ours.unused.weight.grad is None
    assert ours.calls == theirs.calls == 3
    assert torch.equal(ours.inner(x), theirs.inner(x))
    copy = deepcopy(ours)
    nn.init.zeros_(copy.more["out"].weight)
    assert torch.allclose(copy(x)[0], copy.more["out"].bias.expand(8, 4))
    assert ours.more["out"].weight.abs().sum() > 0


def test_dropout_is_drawn_as_here(names):
    ours, theirs = names("Layer")(4), module(SOURCE, "Layer")(4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(8, 4)
    outputs = []
    for layer in (ours, theirs):
        torch.manual_seed(5)
        outputs.append(layer(x)[0])
    assert torch.allclose(*outputs)


def test_a_method_that_shares_memory_is_found_out(names):
    layer = names("Layer")(3)
    state = {"w": torch.randn(3, 3), "b": torch.randn(3)}
    layer.load(state)
    assert torch.equal(layer.inner.weight, state["w"])
    assert layer.inner.weight.data_ptr() == state["w"].data_ptr()
    assert torch.equal(layer.inner.bias, state["b"])
    assert layer.inner.bias.data_ptr() != state["b"].data_ptr()


def test_objects_keep_their_ways(names):
    kind = names("Cache")
    cache = kind()
    x = torch.randn(2)
    assert not cache
    assert cache.append(x) == 1
    assert len(cache) == 1
    assert torch.equal(cache[0], x)
    assert [y.tolist() for y in cache] == [x.tolist()]
    assert isinstance(cache, kind)
    assert not isinstance(3, kind)
    assert kind.size == 4
    cache.size = 7
    assert cache.size == 7
    with cache as entered:
        assert entered is cache
    assert len(cache) == 0
    with pytest.raises(IndexError):
        cache[0]
    with pytest.raises(AttributeError, match="evict"):
        cache.evict()
    with pytest.raises(TypeError):
        cache()


@pytest.mark.parametrize("kind", ["ModuleCache", "ListCache"])
def test_modules_and_lists_with_methods_are_objects(names, kind):
    cache = names(kind)()
    assert len(cache) == 0
    assert torch.equal(cache.update(torch.ones(1)), torch.ones(1))
    assert torch.equal(cache.update(torch.zeros(1)), torch.tensor([1.0, 0.0]))
    assert len(cache) == 2


def test_a_list_by_another_name_is_a_list(names):
    assert names("more_rows")([1, 2]) == [1, 2, 3]


def test_spies_see_what_happens_there(names):
    with forbid_softmax(), pytest.raises(AssertionError, match="own softmax"):
        names("softmax")(torch.ones(3))
    with forbid_autograd(), pytest.raises(AssertionError, match="by hand"):
        names("differentiate")(torch.ones(3))
    names("softmax")(torch.ones(3))
    q, k = torch.randn(2, 30, 4, dtype=torch.float64)
    with Watch() as seen:
        names("untiled")(q, k)
    assert seen.calls["mm"] == 1
    assert seen.largest == 30 * 30 * 8
    assert seen.held >= seen.largest
    with Watch() as here:
        untiled = module(SOURCE, "untiled")
        untiled(q, k)
    assert here.calls == seen.calls
    assert here.largest == seen.largest
    assert here.held == seen.held


def test_a_spy_sees_what_functions_of_a_check_have_returned(names):
    def draw(size):
        return torch.zeros(size), (torch.ones(size),)

    given, unused = torch.zeros(50), torch.zeros(3)
    with Watch() as seen:
        names("gather")(draw, 50, unused)
    assert seen.held == 3 * 2 * 50 * 4
    with Watch() as seen:
        names("gather")(lambda x: x, given, unused)
    assert seen.held == 0  # it came from there


def test_lies_are_not_believed(names):
    liar, number, tensor = names("lies")()
    assert liar != 1
    assert type(number) is float
    assert number != 3
    assert type(tensor) is torch.Tensor
    assert tensor.shape == (2, 3)
    assert not tensor.any()


@pytest.mark.parametrize("kind", ["expanded", "large", "text", "deep"])
def test_what_is_too_large_is_refused(names, kind):
    with pytest.raises((WireError, Exception)) as caught:
        names("huge")(kind)
    assert not isinstance(caught.value, GoneError)


class Lent:
    """What a check might pass on; ``tests`` is among the course's own."""

    def __init__(self):
        self.secret = torch.ones(1)
        self._secret = torch.zeros(1)


def test_what_is_lent_can_be_called_and_no_more(names):
    expected = torch.randn(3)

    def check(x):
        return x + expected

    assert names("snoop")(check) == []
    assert names("peek")(Lent()) == ["secret"]
    assert names("peek")(nn.Linear(2, 2)) == []
    assert names("peek")(np.random) == []


def test_an_assertion_of_ours_is_not_theirs_to_catch(names):
    heard = []

    def fails():
        raise AssertionError("it should be 42")

    with pytest.raises(AssertionError, match="it should be 42"):
        heard.append(names("swallow")(fails))
    assert heard == []


def test_forged_messages_are_no_answers(names):
    forge = names("forge")
    with pytest.raises(WireError):
        forge()


def test_no_message_can_do_more_than_be_refused():
    """Messages that are changed at random decode, or are refused."""

    class Lender:
        def lend(self, value, encoder):
            return {"object": {"handle": 0}}

        def proxy(self, description, decoder):
            return object()

        def own(self, handle):
            raise WireError("there is none")

    sent = Encoder(Lender())
    x = torch.randn(3, 4)
    sent.encode([x, {"a": x.T}, x[1:], np.ones(2), (1, 2)])
    sent.finish()
    answer = Encoder(Lender())
    value = answer.encode([x, {"a": x.T}, x[1:], np.ones(2), (1, slice(3))])
    head = answer.finish()
    blobs = [bytearray(bytes(blob)) for blob in answer.blobs]
    rng = random.Random(0)
    odd = [None, -1, 0, 7, 2**70, -5, 1.5, "x", "nn", "float64"]
    odd += [[], {}, [0], {"ref": 0}, {"ref": -1}, {"own": 3}, {"tensor": []}]

    def change(node):
        if rng.random() < 0.08:
            return rng.choice(odd)
        if isinstance(node, list):
            return [change(child) for child in node]
        if isinstance(node, dict):
            return {k: change(child) for k, child in node.items()}
        return node

    refused = 0
    for _ in range(3_000):
        decoder = Decoder(Lender(), blobs, sent)
        decoder.start(head)
        try:
            decoder.decode(change(value))
        except WireError:
            refused += 1
    assert 500 < refused < 3_000
    assert x.shape == (3, 4)


def test_without_fork_the_verdicts_are_the_same(tmp_path):
    """The way of Windows and macOS, tried here."""
    from dataclasses import asdict

    from autograder import trial
    from autograder.chapters import find
    from autograder.sample_class import reference_answers
    from autograder.submissions import read

    chapter = find("attention")
    right = reference_answers(chapter)
    wrong = """
        def attention_scores(q, k):
            return q @ k.mT


        def attention_backward(*args):
            import os
            os._exit(1)
    """
    path = tmp_path / "answers.py"
    answers = {**right, "attention_scores": "", "attention_backward": ""}
    path.write_text("\n\n".join(answers.values()) + textwrap.dedent(wrong))
    cells = [asdict(one) for one in read(chapter, path).cells]
    spawned = trial.judge(
        chapter, chapter.exercises, outside.SpawnedSubmission(cells)
    )
    process, nursery = start_nursery()
    forked = trial.judge(
        chapter,
        chapter.exercises,
        outside.ForkedSubmission(cells, nursery, sandbox.best_level()),
    )
    nursery.close()
    process.wait(10)
    points = [
        [check["points"] for check in exercise["checks"]]
        for exercise in forked["exercises"]
    ]
    assert points == [[2, 2, 2], [0, 0, 0], [2, 2], [2, 2, 2], [0, 0]]
    for one, other in zip(
        spawned["exercises"], forked["exercises"], strict=True
    ):
        assert [c["points"] for c in one["checks"]] == [
            c["points"] for c in other["checks"]
        ]
        assert one["diagnosis"] == other["diagnosis"]
