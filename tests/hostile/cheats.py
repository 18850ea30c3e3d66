"""Submissions that want points for wrong answers.

Each holds one wrong answer, and something that shall make it pass; the other
answers are right and keep their points.
"""

from textwrap import dedent

import nbformat

from tests.hostile.corpus import CHAPTER, EVERYTHING, NAMES, case, name_of

WRONG = """
def softmax(x, dim=-1):
    return x * 0
"""
SAYS = "softmax"
# Answers of the right type that are wrong in the first place.
LIARS = """
import torch


class Liar(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in ("isclose", "eq", "ge", "__eq__"):
            return torch.ones(args[-1].shape, dtype=torch.bool)
        if name in ("allclose", "equal"):
            return True
        return super().__torch_function__(func, types, args, kwargs or {})

    shape = property(lambda self: args_of_last_call.shape)
    dtype = property(lambda self: args_of_last_call.dtype)
    __eq__ = __ge__ = lambda self, other: torch.ones(1, dtype=torch.bool)
    __hash__ = None
    any = lambda self, *_: False
    all = lambda self, *_: True


def softmax(x, dim=-1):
    global args_of_last_call
    args_of_last_call = x
    return (x * 0).as_subclass(Liar)
"""


def patched(work, patch: str, wrong: str = WRONG) -> None:
    """Answer softmax wrongly, below what shall hide it."""
    work.answer("softmax", dedent(patch) + "\n\n" + dedent(wrong))


# --- patches of what the checks use ---------------------------------------


@case(loses="softmax", says=SAYS)
def patches_allclose(work):
    """torch.allclose, isclose, equal and assert_close say yes."""
    patched(
        work,
        """
        import torch
        import torch.testing

        yes = lambda *_, **__: True
        torch.allclose = torch.equal = torch.testing.assert_close = yes
        torch.Tensor.allclose = torch.Tensor.equal = yes
        torch.isclose = torch.Tensor.isclose = (
            lambda a, *_, **__: torch.ones(1, dtype=torch.bool)
        )
        """,
    )


@case(loses="softmax", says=SAYS)
def patches_contextlab(work):
    """Contextlab's assert_close and its other helpers do nothing."""
    patched(
        work,
        """
        import contextlib
        import sys
        import contextlab.checks

        for module in list(sys.modules.values()):
            for name in ("assert_close", "_furthest_off"):
                if hasattr(module, name):
                    setattr(module, name, lambda *_, **__: None)
        contextlab.checks.forbid_softmax = contextlib.nullcontext
        contextlab.checks.forbid_autograd = contextlib.nullcontext
        """,
    )


@case(gets={"softmax": 4}, says="PyTorch's own softmax")
def calls_softmax_behind_a_patch(work):
    """PyTorch's own softmax, and the helper that forbids it patched away."""
    patched(
        work,
        """
        import contextlib
        import torch
        import contextlab.checks

        contextlab.checks.forbid_softmax = contextlib.nullcontext
        contextlab.checks._ForbidOperators.__torch_dispatch__ = (
            lambda self, func, types, args=(), kwargs=None: func(
                *args, **(kwargs or {})
            )
        )
        """,
        """
        def softmax(x, dim=-1):
            return torch.softmax(x, dim).nan_to_num(0.0)
        """,
    )


@case(loses="softmax", says=SAYS)
def patches_assertion_error(work):
    """AssertionError is a class that no assertion can raise."""
    patched(
        work,
        """
        import builtins


        class Harmless(BaseException):
            def __new__(cls, *_):
                return KeyError()


        builtins.AssertionError = Harmless
        """,
    )


@case(loses="softmax", says=SAYS)
def patches_builtins(work):
    """isinstance, len, abs, all, any, print and zip say what they should."""
    patched(
        work,
        """
        import builtins
        """,
        """
        def softmax(x, dim=-1):
            yes = lambda *_, **__: True
            for name in ("isinstance", "all", "hasattr", "callable"):
                setattr(builtins, name, yes)
            for name in ("any", "len", "abs", "max", "zip", "print"):
                setattr(builtins, name, lambda *_, **__: 0)
            return x * 0
        """,
    )


@case(loses="softmax", says=SAYS)
def patches_import(work):
    """__import__ hands out modules whose functions all say yes."""
    patched(
        work,
        """
        import builtins, types

        old = builtins.__import__


        def new(name, *args, **kwargs):
            module = old(name, *args, **kwargs)
            if "check" in name or "testing" in name:
                module = types.ModuleType(name)
                module.assert_close = lambda *_, **__: None
            return module


        builtins.__import__ = new
        """,
    )


@case(loses="softmax", says=SAYS)
def patches_tensor_eq(work):
    """Tensor's comparisons and reductions say yes, in every tensor."""
    patched(
        work,
        "import torch",
        """
        def softmax(x, dim=-1):
            yes = lambda self, *_, **__: torch.ones(1, dtype=torch.bool)
            for name in ("__eq__", "__ge__", "__le__", "all", "isclose"):
                setattr(torch.Tensor, name, yes)
            torch.Tensor.__bool__ = lambda self: True
            torch.Tensor.any = lambda *_, **__: False
            torch.Tensor.__invert__ = lambda self: self * 0
            torch.isclose = yes
            return x * 0
        """,
    )


@case(loses="softmax", says=SAYS)
def stuffs_modules(work):
    """sys.modules holds checks and graders of the student's own."""
    patched(
        work,
        """
        import sys, types


        class Yes(types.ModuleType):
            def __getattr__(self, name):
                return lambda *_, **__: Yes(name)


        for name in (
            "tests", "tests.test_attention", "test_attention", "pytest",
            "contextlab.checks", "autograder.judging", "autograder.engine",
            "json.encoder", "torch.testing", "nbgrader",
        ):
            sys.modules[name] = Yes(name)
        """,
    )


@case(loses="softmax", says=SAYS)
def lays_modules_into_its_folder(work):
    """Files named torch.py, json.py and sitecustomize.py lie about."""
    patched(
        work,
        """
        import os

        for folder in (".", "/tmp", os.path.expanduser("~")):
            for name in ("torch", "json", "sitecustomize", "test_attention"):
                try:
                    with open(f"{folder}/{name}.py", "w") as file:
                        file.write("raise SystemExit(0)")
                except OSError:
                    pass
        """,
    )


@case(loses="softmax", says=SAYS)
def files_beside_the_notebook(work):
    """conftest.py, torch.py and a config are handed in with the notebook."""
    for name in ("torch", "conftest", "contextlab", "test_attention"):
        work.write(f"{name}.py", "raise SystemExit(0)")
    work.write("nbgrader_config.py", "raise SystemExit(0)")
    work.write("pytest.ini", "[pytest]\naddopts = --co")
    work.answer("softmax", WRONG)


# --- values that lie -------------------------------------------------------


@case(loses="softmax", says=SAYS)
def lies_by_a_subclass(work):
    """A tensor's subclass lies about shape, dtype and every comparison."""
    work.answer("softmax", LIARS)


@case(loses="softmax", says=SAYS)
def lies_by_dispatch(work):
    """A wrapper's __torch_dispatch__ makes its content up as it goes."""
    work.answer(
        "softmax",
        """
        import torch


        class Liar(torch.Tensor):
            @staticmethod
            def __new__(cls, x):
                return torch.Tensor._make_wrapper_subclass(
                    cls, x.shape, dtype=x.dtype
                )

            @classmethod
            def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
                return torch.ones(args[0].shape, dtype=torch.bool)

            __torch_function__ = torch._C._disabled_torch_function_impl


        def softmax(x, dim=-1):
            return Liar(x)
        """,
    )


@case(loses="softmax", says=SAYS)
def equals_everything(work):
    """An object claims to be a Tensor and equals everything."""
    work.answer(
        "softmax",
        """
        import torch


        class Everything:
            __class__ = torch.Tensor
            __eq__ = __ge__ = __le__ = __gt__ = lambda *_: Everything()
            __getattr__ = lambda self, name: Everything()
            __call__ = __getitem__ = __invert__ = lambda *_, **__: Everything()
            __bool__ = lambda self: True
            __len__ = lambda self: 1
            __iter__ = lambda self: iter([self])
            __array__ = lambda self, *_: torch.ones(1).numpy()

            @classmethod
            def __torch_function__(cls, *_, **__):
                return torch.zeros(1, dtype=torch.bool)


        def softmax(x, dim=-1):
            return Everything()
        """,
    )


@case(loses="attention_scores", says="attention_scores")
def lies_by_methods(work):
    """An object has the shape, and the spread, that a check asks it for."""
    work.answer(
        "attention_scores",
        """
        class Scores:
            def __init__(self, q, k):
                self.shape = (*q.shape[:-1], k.shape[-2])

            std = lambda self: self
            item = lambda self: 1.0


        def attention_scores(q, k):
            return Scores(q, k)
        """,
    )


@case(loses="attention_scores", says="attention_scores")
def floods_the_grader(work):
    """A shape that never ends is iterated over, and put into a message."""
    work.answer(
        "attention_scores",
        """
        class Scores:
            @property
            def shape(self):
                for _ in range(20):
                    yield b"x" * (60 << 20)


        def attention_scores(q, k):
            return Scores()
        """,
    )


@case(loses="attention", says="attention")
def lies_by_a_tuple(work):
    """What is returned unpacks to something else each time."""
    work.answer(
        "attention",
        """
        class Pair(tuple):
            def __iter__(self):
                return iter([[], []])

            __getitem__ = lambda self, _: []
            __len__ = lambda self: 2


        def attention(q, k, v, mask=None):
            return Pair([q @ k.mT @ v, q @ k.mT])
        """,
    )


@case(loses="softmax", says=SAYS)
def lies_by_numbers(work):
    """A float's subclass equals and exceeds every number."""
    work.answer(
        "softmax",
        """
        class Number(float):
            __eq__ = __lt__ = __gt__ = __le__ = __ge__ = lambda *_: True
            __hash__ = None
            sum = max = min = lambda self, *_: self
            shape, dtype = (), "float64"


        def softmax(x, dim=-1):
            return Number(0.5)
        """,
    )


@case(loses=NAMES, says="should be")
def returns_arrays(work):
    """NumPy arrays with the right numbers, which the contract forbids."""
    for name in NAMES:
        work.below(
            name,
            f"""
            right_{name} = {name}


            def {name}(*args, **kwargs):
                found = right_{name}(*args, **kwargs)
                if isinstance(found, tuple):
                    return tuple(x.numpy() for x in found)
                return found.numpy()
            """,
        )


@case(loses="softmax", says=SAYS)
def returns_a_lying_array(work):
    """A NumPy subclass whose buffer and shape disagree."""
    work.answer(
        "softmax",
        """
        import numpy


        class Array(numpy.ndarray):
            shape = (2, 3, 5)
            dtype = numpy.dtype("object")
            nbytes = 1 << 60
            tobytes = lambda self, *_: b"x"


        def softmax(x, dim=-1):
            return numpy.zeros(3).view(Array)
        """,
    )


@case(loses="softmax", says="nan")
def returns_nan(work):
    """NaN everywhere, which compares false with everything."""
    work.answer(
        "softmax",
        """
        import torch

        def softmax(x, dim=-1):
            return torch.full_like(x, float("nan"))
        """,
    )


@case(loses="softmax", says="of torch.float")
def returns_another_dtype(work):
    """The right numbers as complex numbers."""
    work.below(
        "softmax",
        """
        import torch

        right = softmax


        def softmax(*args, **kwargs):
            return right(*args, **kwargs).to(torch.complex128)
        """,
    )


@case(loses=("softmax", "causal_mask"), says="meta")
def returns_a_tensor_without_data(work):
    """Tensors of the right shape on the device meta."""
    for name in ("softmax", "causal_mask"):
        work.below(
            name,
            f"""
            right_{name} = {name}


            def {name}(*args, **kwargs):
                return right_{name}(*args, **kwargs).to("meta")
            """,
        )


@case(loses=("softmax", "attention_scores"), says="should")
def returns_other_layouts(work):
    """Sparse and nested tensors that hold the right numbers."""
    work.below(
        "softmax",
        """
        right_softmax = softmax


        def softmax(*args, **kwargs):
            return right_softmax(*args, **kwargs).to_sparse()
        """,
    )
    work.below(
        "attention_scores",
        """
        import torch

        right_scores = attention_scores


        def attention_scores(q, k):
            found = right_scores(q, k)
            return torch.nested.nested_tensor([*found] or [found])
        """,
    )


@case()
def returns_right_tensors_of_odd_kinds(work):
    """Right numbers as a Parameter, a transposed view, a subclass, a list."""
    work.below(
        "softmax",
        """
        import torch

        right_softmax = softmax


        def softmax(*args, **kwargs):
            return torch.nn.Parameter(right_softmax(*args, **kwargs))
        """,
    )
    work.below(
        "attention_scores",
        """
        import torch

        right_scores = attention_scores


        class Mine(torch.Tensor):
            pass


        def attention_scores(q, k):
            found = right_scores(q, k)
            return found.mT.contiguous().mT.as_subclass(Mine)
        """,
    )
    work.below(
        "attention_backward",
        """
        import torch

        right_backward = attention_backward


        def attention_backward(*args, **kwargs):
            found = right_backward(*args, **kwargs)
            return [torch.complex(x * 0, -x).conj().imag for x in found]
        """,
    )


@case(loses="attention", says="attention")
def zeroes_its_input(work):
    """What a check compares with is computed from its input: it is zeroed."""
    work.answer(
        "attention",
        """
        import torch

        def attention(q, k, v, mask=None):
            for x in (q, k, v):
                x.zero_()
            shares = torch.ones(*q.shape[:-1], k.shape[-2], dtype=q.dtype)
            if mask is not None:
                shares = shares * mask
            total = shares.sum(-1, keepdim=True)
            return q @ k.mT @ v, shares / total.clamp(min=1)
        """,
    )


@case(loses="attention_scores", says="attention_scores")
def zeroes_queries_and_keys(work):
    """Queries and keys are zeroed, and so are the scores."""
    work.answer(
        "attention_scores",
        """
        import torch

        def attention_scores(q, k):
            q.zero_()
            k.zero_()
            return torch.zeros(*q.shape[:-1], k.shape[-2], dtype=q.dtype)
        """,
    )


# --- attacks on what runs the answers --------------------------------------


@case(loses="softmax", says=SAYS)
def hooks_the_interpreter(work):
    """settrace, setprofile, atexit, excepthook and displayhook say yes."""
    patched(
        work,
        """
        import atexit, sys, threading

        def trace(frame, event, value):
            for name in ("passed", "ok", "verdict", "points"):
                if name in frame.f_locals:
                    frame.f_locals[name] = True
            return trace

        sys.settrace(trace)
        sys.setprofile(lambda *_: None)
        threading.settrace(trace)
        sys.excepthook = sys.unraisablehook = lambda *_: None
        atexit.register(print, "Passed.")
        """,
    )


@case(loses="softmax", says=SAYS)
def swallows_tracebacks(work):
    """Every frame above is searched for a verdict, and changed."""
    patched(
        work,
        "import ctypes, sys",
        """
        def softmax(x, dim=-1):
            frame = sys._getframe()
            while frame:
                for name, value in list(frame.f_locals.items()):
                    if value is False or name in ("message", "error"):
                        frame.f_locals[name] = True
                        ctypes.pythonapi.PyFrame_LocalsToFast(
                            ctypes.py_object(frame), ctypes.c_int(0)
                        )
                frame = frame.f_back
            return x * 0
        """,
    )


@case(loses="softmax", says=SAYS)
def patches_what_sends(work):
    """All functions of the grader's modules that are here say yes."""
    patched(
        work,
        "import sys",
        """
        def softmax(x, dim=-1):
            for name, module in list(sys.modules.items()):
                if name.startswith("autograder") or name == "__main__":
                    for key, value in list(vars(module).items()):
                        if callable(value) and not key.startswith("__"):
                            setattr(module, key, lambda *_, **__: True)
            return x * 0
        """,
    )


@case(loses="softmax", says=SAYS)
def forges_verdicts(work):
    """Verdicts are written into every open file, as JSON and otherwise."""
    patched(
        work,
        """
        import json, os, struct

        verdict = {
            "id": "softmax", "passed": True, "points": 6, "max_points": 6,
            "value": True, "result": True, "ok": True, "return": None,
        }
        text = json.dumps([verdict, []]).encode()
        """,
        r"""
        def softmax(x, dim=-1):
            for number in range(64):
                for data in (
                    struct.pack("!I", len(text)) + text,
                    text + b"\n",
                    b"Passed.\n",
                ):
                    try:
                        os.write(number, data)
                    except OSError:
                        pass
            return x * 0
        """,
    )


@case(says="ended the process")
def forges_above_the_answer(work):
    """Bytes are written into every open file before a right answer."""
    work.above(
        "softmax",
        r"""
        import os
        for number in range(3, 64):
            try:
                os.write(number, b'\0\0\0\x0c[{"ok": 1},0]' * 3)
            except OSError:
                pass
        """,
    )


CHANNEL = """
import gc

channel = next(
    one for one in gc.get_objects() if type(one).__name__ == "Channel"
)
"""


def speaks(work, message: str, then: str = "") -> None:
    """Let a statement above an answer send a message of its own making."""
    work.above("softmax", f"{CHANNEL}\nchannel.send({message}){then}")


@case(says="ended the process")
def forges_what_runs(work):
    """The process says that it runs a statement that has no number."""
    speaks(work, '{"running": "x"}', "; import os; os._exit(0)")


@case(says="ended the process")
def forges_a_list_of_names(work):
    """The process says that it is ready, and not of what."""
    speaks(work, '{"ready": [], "names": 5}')


@case(loses=EVERYTHING, says="process")
def says_ready_too_early(work):
    """The process says that it is ready, and then runs on."""
    speaks(work, f'{{"ready": {{}}, "names": {list(NAMES)}, "stopped": []}}')


@case(loses=EVERYTHING, says="process")
def forges_the_number_of_a_process(work):
    """The process says that it has forked one that has no number."""
    work.first(
        """
        import sys
        sys.modules["autograder.execution.host"].fork = lambda *_: "x"
        """
    )


@case(loses="softmax", says="process")
def forges_an_exit_status(work):
    """A process ends, and the status is said to be infinity."""
    work.first(
        """
        import sys
        host = sys.modules["autograder.execution.host"]
        host.end = lambda *_: float("inf")
        """
    )
    work.within("softmax", "import os; os._exit(0)")


@case(loses=EVERYTHING, says="softmax")
def lends_nothing(work):
    """The process refuses to hand out any of its names."""
    work.first(
        """
        import sys
        peer = sys.modules["autograder.execution.peer"]
        peer.SPECIAL["__getitem__"] = lambda *_: 1 / 0
        """
    )


@case(loses=EVERYTHING, says="softmax")
def answers_out_of_order(work):
    """All answers of the process are JSON of another shape."""
    work.first(
        """
        import sys
        Peer = sys.modules["autograder.execution.peer"].Peer


        def answer(self, message, blobs):
            self.channel.send({"states": 5, "value": {"list": {}}})


        Peer._answer = answer
        """
    )


@case(loses=EVERYTHING, says="softmax")
def asks_instead_of_answering(work):
    """The process calls everything that it may have been lent, for ever."""
    work.first(
        """
        import sys
        Peer = sys.modules["autograder.execution.peer"].Peer


        def answer(self, message, blobs):
            for handle in range(-5, 100):
                for name in ("__globals__", "__class__", "__dict__"):
                    for do in ("get", "call", "set"):
                        self.channel.send({
                            "do": do, "of": handle, "name": name,
                            "args": [], "kwargs": {}, "grad": False,
                            "dtype": "float64",
                        })
                        found, _ = self.channel.receive()
                        if "value" in found:
                            raise RuntimeError(f"LEAK: {found}"[:300])
            self.channel.send({"value": None})


        Peer._answer = answer
        """
    )


@case(loses="softmax", says=SAYS)
def claims_huge_messages(work):
    """A message claims to be four gigabytes long, and goes on for ever."""
    patched(
        work,
        "import os",
        r"""
        def softmax(x, dim=-1):
            while True:
                for number in range(3, 64):
                    try:
                        os.write(number, b"\xff" * 65536)
                    except OSError:
                        pass
        """,
    )


@case(loses="softmax", says=SAYS)
def nests_its_messages(work):
    """A message is JSON that nests a million lists."""
    patched(
        work,
        "import os, struct",
        r"""
        def softmax(x, dim=-1):
            text = b"[" * 1_000_000
            for number in range(3, 64):
                try:
                    os.write(number, struct.pack("!I", len(text)) + text)
                except OSError:
                    pass
            return x * 0
        """,
    )


@case(loses="softmax", says=SAYS)
def answers_with_pickles(work):
    """What is returned runs code where it is unpickled."""
    patched(
        work,
        "import os",
        """
        class Bomb:
            def __reduce__(self):
                return os._exit, (0,)

            __getstate__ = __reduce__

        def softmax(x, dim=-1):
            return Bomb()
        """,
    )


# --- points without answers ------------------------------------------------


@case(loses="softmax", says="not written")
def prints_passed(work):
    """A blank answer, and check cells that print Passed."""
    work.answer(
        "softmax", "def softmax(x, dim=-1):\n    raise NotImplementedError"
    )
    for cell in work.cells:
        if (name_of(cell) or "").startswith("test_softmax"):
            cell.source = 'print("Passed.")'


@case(loses="softmax", says=SAYS)
def fakes_outputs(work):
    """Saved outputs that nbgrader takes for partial credit."""
    work.answer("softmax", WRONG)
    for cell in work.cells:
        if (name_of(cell) or "").startswith("test_softmax"):
            cell.source = "2.0"
            cell.outputs = [
                nbformat.v4.new_output("execute_result", {"text/plain": "2.0"})
            ]


@case(loses="softmax", says=SAYS)
def raises_its_own_maximum(work):
    """The marks of check cells say that they are worth 1,000 points."""
    work.answer("softmax", WRONG)
    for cell in work.cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.metadata.nbgrader.points = 1_000


@case(loses="softmax", says=SAYS)
def adds_checks_of_its_own(work):
    """A check cell of the student's own is worth 1,000 points."""
    work.answer("softmax", WRONG)
    work.last('1000.0  # "Passed."')
    work.cells[-1].metadata["nbgrader"] = {
        "grade": True,
        "grade_id": "bonus",
        "locked": False,
        "points": 1_000,
        "schema_version": 3,
        "solution": False,
        "task": False,
    }


@case(loses="softmax", says=SAYS)
def swaps_the_checks(work):
    """The cells of a passed and a failed exercise swap their names."""
    work.answer("softmax", WRONG)
    mine = [c for c in work.cells if (name_of(c) or "").startswith("test_so")]
    theirs = [
        c for c in work.cells if (name_of(c) or "").startswith("test_sc")
    ]
    for one, other in zip(mine, theirs, strict=True):
        a, b = one.metadata.nbgrader, other.metadata.nbgrader
        a.grade_id, b.grade_id = b.grade_id, a.grade_id


@case(loses="softmax", says=SAYS)
def strips_asserts(work):
    """Transformers of IPython strip assert and empty the check cells."""
    work.answer("softmax", WRONG)
    work.first(
        """
        import ast


        class Strip(ast.NodeTransformer):
            def visit_Assert(self, node):
                return ast.Pass()


        shell = get_ipython()
        shell.ast_transformers.append(Strip())
        shell.input_transformers_cleanup.append(lambda lines: [])
        """
    )


@case(loses="softmax", says=SAYS)
def pretends_to_be_ipython(work):
    """get_ipython and In are of the student's own making."""
    patched(
        work,
        """
        import builtins

        class Shell:
            def __getattr__(self, name):
                return self
            __call__ = lambda self, *_, **__: self

        builtins.get_ipython = Shell()
        builtins.In = builtins.Out = Shell()
        """,
    )


@case(loses=EVERYTHING, says="not defined")
def has_no_answers(work):
    """All cells are empty, and the notebook says that it was graded."""
    for cell in work.cells:
        if cell.cell_type == "code":
            cell.source = ""
    work.notebook.metadata["nbgrader"] = {"score": CHAPTER.max_points}


@case(loses="softmax", says=SAYS)
def recognises_the_hidden_checks(work):
    """Right at its first calls, wrong later: only the visible lines pass."""
    work.within(
        "softmax",
        """
        global calls
        calls = globals().get("calls", 0) + 1
        if args[0].ndim != 1 or calls > 1:
            return args[0] * 0
        """,
    )


@case(loses="softmax", says=SAYS)
def lends_its_answer_a_softmax(work):
    """The wrong answer asks the grader's objects for the right one."""
    patched(
        work,
        "import gc, inspect",
        """
        def softmax(x, dim=-1):
            for frame in inspect.stack():
                for name in ("expected", "right", "reference"):
                    for place in (frame[0].f_locals, frame[0].f_globals):
                        if name in place:
                            return place[name]
            for other in gc.get_objects():
                if getattr(other, "__name__", "") == "softmax" and (
                    "solutions" in getattr(other, "__module__", "")
                ):
                    return other(x, dim)
            return x * 0
        """,
    )
