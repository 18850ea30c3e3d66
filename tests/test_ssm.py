"""Checks of chapter 12; a student does not see the hidden lines."""

import math

import torch

from contextlab.checks import assert_close, describe_type
from contextlab.mamba import mamba2_scan, mamba_scan, mixer_twins
from contextlab.spies import Watch
from solutions.ssm import (
    MambaBlock,
    discretize,
    scan_parallel,
    scan_sequential,
    selective_scan,
    ssd_chunked,
)


def _assert_pair(got, expected, names, when="", tolerance=None):
    """Assert that an answer returned two tensors, and the right ones."""
    assert isinstance(got, tuple | list), (
        f"Return two tensors, {names[0]} and {names[1]}. This returned "
        f"{describe_type(got)}."
    )
    assert len(got) == 2, (
        f"Return two tensors, {names[0]} and {names[1]}. This returned "
        f"{len(got)}."
    )
    for name, tensor, right in zip(names, got, expected, strict=True):
        assert_close(tensor, right, f"{name}{when}", tolerance)


def _assert_unchanged(given, kept, names):
    """Assert that an answer left its inputs as they were."""
    for name, now, before in zip(names, given, kept, strict=True):
        assert_close(now, before, f"{name}, which must not change,")


STEP = ("ā", "b̄")


def _held(delta, a, b):
    """Solve h' = a·h + b·u by a matrix exponential, one number at a time.

    The system [h, u]' = [[a, b], [0, 0]] [h, u] holds u constant, so the
    first row of its exponential is ā and b̄.
    """
    delta, a, b = torch.broadcast_tensors(delta[..., None], a, b[..., None, :])
    system = torch.zeros(*a.shape, 2, 2, dtype=a.dtype)
    system[..., 0, 0], system[..., 0, 1] = delta * a, delta * b
    solved = torch.linalg.matrix_exp(system)
    return solved[..., 0, 0], solved[..., 0, 1]


def test_discretize_by_hand():
    """In a step of ln 2, a rate of −1 halves the state, and −2 quarters it."""
    delta = torch.tensor([math.log(2.0)], dtype=torch.float64)
    a = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    b = torch.tensor([3.0, 8.0], dtype=torch.float64)
    right = (
        torch.tensor([[0.5, 0.25]], dtype=torch.float64),
        torch.tensor([[1.5, 3.0]], dtype=torch.float64),
    )
    _assert_pair(discretize(delta, a, b), right, STEP)


def test_discretize_is_exact():
    """The step is the exact solution, for any step length and any shape."""
    torch.manual_seed(1)
    delta = torch.rand(2, 5, 3, dtype=torch.float64) * 2 + 0.01
    a = -3 * torch.rand(3, 4, dtype=torch.float64)
    b = torch.randn(2, 5, 4, dtype=torch.float64)
    right = _held(delta, a, b)
    given = [x.clone() for x in (delta, a, b)]
    _assert_pair(discretize(*given), right, STEP)
    ### BEGIN HIDDEN TESTS
    _assert_unchanged(given, (delta, a, b), ("delta", "a", "b"))
    flat = (delta[1, 2], a, b[1, 2])
    right = _held(*flat)
    _assert_pair(discretize(*flat), right, STEP, " of a single token")
    single = [x.float() for x in flat]
    right = [x.float() for x in right]
    _assert_pair(discretize(*single), right, STEP, " in float32")
    fast = (40 * delta, a - 1, b)  # nothing is left of the state
    right = _held(*fast)
    _assert_pair(discretize(*fast), right, STEP, " of long steps")
    ### END HIDDEN TESTS


def test_discretize_of_slow_decay():
    """A rate of 0 keeps all and adds delta·b; one near 0 costs no digits."""
    torch.manual_seed(2)
    delta = torch.tensor([0.3, 2.0], dtype=torch.float64)
    a = torch.tensor([[0.0, -1e-11], [-1e-13, 0.0]], dtype=torch.float64)
    b = torch.randn(2, dtype=torch.float64)
    x = delta[:, None] * a
    mean = 1 + x / 2  # of exp over the step; what follows is below 1e-20
    right = (1 + x, mean * delta[:, None] * b)
    _assert_pair(discretize(delta, a, b), right, STEP, tolerance=1e-9)
    ### BEGIN HIDDEN TESTS
    delta, a = torch.ones(1).double(), -torch.logspace(-12, -1, 89).double()
    b = torch.rand(89, dtype=torch.float64) + 1
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
        given = [x.to(dtype) for x in (delta, a[None], b)]
        x = given[1].double()  # delta·a, as the answer sees it
        right = (x.exp(), torch.expm1(x) / x * given[2].double())
        right = [x.to(dtype) for x in right]
        when = f", delta·a from -1e-12 to -0.1 in {dtype},"
        got = discretize(*given)
        _assert_pair(got, right, STEP, when, 0.1)
        for name, tensor, expected in zip(STEP, got, right, strict=True):
            error = ((tensor - expected).abs() / expected).max().item()
            assert error <= tolerance, (
                f"{name}{when} is off by up to {error:.1g} of itself; "
                f"{tolerance:.1g} is allowed. exp(x) - 1 loses digits, and "
                "too few terms of a series do so where x isn't tiny."
            )
    ### END HIDDEN TESTS


def _recurrence(a, x, initial=None):
    """Write every state as the sum of all that came before, decayed."""
    states = []
    for t in range(x.shape[1]):
        decay = torch.ones_like(x[:, 0])
        total = torch.zeros_like(x[:, 0])
        for s in range(t, -1, -1):
            total = total + decay * x[:, s]
            decay = decay * a[:, s]
        states.append(total if initial is None else total + decay * initial)
    return torch.stack(states, 1)


def _decays(*shape):
    """Draw decays of both signs, with some exact zeros."""
    a = 2.4 * torch.rand(shape, dtype=torch.float64) - 1.2
    return a.masked_fill(torch.rand(shape) < 0.15, 0.0)


def _gradients(value, leaves):
    """Return the gradients of a sum of squares; what fails is a sentence."""
    try:
        return torch.autograd.grad(
            value.square().sum(), leaves, allow_unused=True
        )
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
    raise AssertionError(
        "You write into a tensor that the backward pass needs. Make new "
        "tensors instead: collect them in a list, and join them at the end."
    )


def _assert_gradients(scan, a, x):
    """Assert that a scan's gradients are those of the recurrence."""
    a = a.clone().requires_grad_()
    x = x.clone().requires_grad_()
    right = torch.autograd.grad(_recurrence(a, x).square().sum(), (a, x))
    states = scan(a, x)
    assert isinstance(states, torch.Tensor), "The states are one tensor."
    assert states.requires_grad, (
        "No gradient flows through the states: compute with tensors from the "
        "first line to the last."
    )
    got = _gradients(states, (a, x))
    for name, grad, expected in zip("ax", got, right, strict=True):
        assert grad is not None, f"No gradient reaches {name}."
        assert_close(grad, expected, f"the gradient by {name}")


def test_scan_by_hand():
    """Half of the state is kept at each of four tokens."""
    a = torch.full((1, 4), 0.5, dtype=torch.float64)
    x = torch.tensor([[8.0, 0.0, 0.0, 4.0]], dtype=torch.float64)
    right = torch.tensor([[8.0, 4.0, 2.0, 5.0]], dtype=torch.float64)
    assert_close(scan_sequential(a, x), right, "the states")


def test_scan_of_any_shape():
    """Each number of the state follows its own decays, also 0 and below."""
    torch.manual_seed(3)
    a, x = _decays(2, 7, 3, 2), torch.randn(2, 7, 3, 2, dtype=torch.float64)
    right = _recurrence(a, x)
    given = (a.clone(), x.clone())
    assert_close(scan_sequential(*given), right, "the states")
    _assert_unchanged(given, (a, x), "ax")
    ### BEGIN HIDDEN TESTS
    got = scan_sequential(a.float(), x.float())
    assert_close(got, right.float(), "the states in float32")
    for n_tokens in (1, 2, 12):
        a = _decays(3, n_tokens, 2)
        x = torch.randn(3, n_tokens, 2, dtype=torch.float64)
        right = _recurrence(a, x)
        got = scan_sequential(a, x)
        assert_close(got, right, f"the states after {n_tokens} tokens")
    _assert_gradients(scan_sequential, a, x)
    ### END HIDDEN TESTS


def test_scan_starts_from_a_state():
    """A text that is read in two parts gives the states of the whole."""
    torch.manual_seed(4)
    a, x = _decays(2, 9, 3), torch.randn(2, 9, 3, dtype=torch.float64)
    right = _recurrence(a, x)
    middle = right[:, 3].clone()
    got = scan_sequential(a[:, 4:], x[:, 4:], middle)
    assert_close(got, right[:, 4:], "the states of the second part")
    ### BEGIN HIDDEN TESTS
    assert_close(middle, right[:, 3], "initial, which must not change,")
    got = scan_sequential(a[:, 4:5], x[:, 4:5], initial=middle)
    assert_close(got, right[:, 4:5], "the state after one more token")
    middle.requires_grad_()
    right = _recurrence(a[:, 4:], x[:, 4:], middle).square().sum()
    right = torch.autograd.grad(right, middle)
    states = scan_sequential(a[:, 4:], x[:, 4:], middle)
    assert states.requires_grad, (
        "No gradient reaches initial. Compute with it as it is: detach() and "
        "no_grad() cut the second part of a text off from the first."
    )
    got = _gradients(states, [middle])
    assert_close(got[0], right[0], "the gradient by initial")
    ### END HIDDEN TESTS


def test_parallel_by_hand():
    """Half of the state is kept at each of five tokens."""
    a = torch.full((1, 5), 0.5, dtype=torch.float64)
    x = torch.tensor([[8.0, 0.0, 0.0, 4.0, 1.0]], dtype=torch.float64)
    right = torch.tensor([[8.0, 4.0, 2.0, 5.0, 3.5]], dtype=torch.float64)
    assert_close(scan_parallel(a, x), right, "the states")


def test_parallel_of_any_length():
    """The states are those of the recurrence, whatever the length."""
    torch.manual_seed(5)
    for n_tokens in (2, 3, 7, 16):
        a = _decays(2, n_tokens, 3)
        x = torch.randn(2, n_tokens, 3, dtype=torch.float64)
        right = _recurrence(a, x)
        given = (a.clone(), x.clone())
        got = scan_parallel(*given)
        assert_close(got, right, f"the states after {n_tokens} tokens")
        _assert_unchanged(given, (a, x), "ax")
    ### BEGIN HIDDEN TESTS
    for n_tokens in (1, 5, 6, 8, 9, 13, 31):
        a = _decays(1, n_tokens, 2, 2)
        x = torch.randn(1, n_tokens, 2, 2, dtype=torch.float64)
        right = _recurrence(a, x)
        got = scan_parallel(a, x)
        assert_close(got, right, f"the states after {n_tokens} tokens")
    got = scan_parallel(a.float(), x.float())
    assert_close(got, right.float(), "the states in float32")
    _assert_gradients(scan_parallel, a[:, :11], x[:, :11])
    ### END HIDDEN TESTS


def test_parallel_survives_strong_decay():
    """Where almost nothing is kept, nothing under- or overflows."""
    torch.manual_seed(6)
    a = torch.full((1, 40, 2), 1e-20, dtype=torch.float64)
    a[0, 20:, 1] = 0.0
    x = torch.randn(1, 40, 2, dtype=torch.float64)
    right = _recurrence(a, x)
    assert_close(scan_parallel(a, x), right, "the states")


def test_parallel_takes_few_rounds():
    """Four times the text takes two rounds more, not four times the calls."""
    torch.manual_seed(7)
    calls, largest = [], 0
    for n_tokens in (256, 1_024):
        a, x = torch.rand(2, 1, n_tokens, 2, dtype=torch.float64)
        with Watch() as seen:
            scan_parallel(a, x)
        calls.append(sum(seen.calls.values()))
        largest = seen.largest
    assert calls[1] < 2 * calls[0] + 16, (
        f"This calls {calls[0]} of PyTorch's operators for 256 tokens and "
        f"{calls[1]} for 1,024: it goes through the tokens one by one. Let "
        "every round work on all tokens at once."
    )
    most = 8 * 8 * 1_024 * 2
    assert largest <= most, (
        f"The largest tensor that was made has {largest:,} bytes; x has "
        f"{8 * 1_024 * 2:,}. That is a matrix of all pairs of tokens: it "
        "makes the cost quadratic again. Combine neighbours instead."
    )
    ### BEGIN HIDDEN TESTS
    n_tokens = 2**16
    a, x = torch.rand(2, 1, n_tokens, 2, dtype=torch.float64)
    with Watch() as seen:
        scan_parallel(a, x)
    called = sum(seen.calls.values())
    assert called <= 3 * calls[0] + 16, (
        f"This calls {calls[0]} of PyTorch's operators for 256 tokens and "
        f"{called} for {n_tokens:,}. Rounds that reach twice as far each "
        "time are 8 and 16; this goes through the parts of a text one by one."
    )
    ### END HIDDEN TESTS


def _scan_case(n_tokens, channels=5, n_state=4, batch=2):
    """Draw what a selective scan is given."""
    u = torch.randn(batch, n_tokens, channels, dtype=torch.float64)
    delta = torch.rand(batch, n_tokens, channels, dtype=torch.float64) + 0.05
    a = -2 * torch.rand(channels, n_state, dtype=torch.float64) - 0.1
    b, c = torch.randn(2, batch, n_tokens, n_state, dtype=torch.float64)
    d = torch.randn(channels, dtype=torch.float64)
    return u, delta, a, b, c, d


def _selective(u, delta, a, b, c, d, state=None):
    """Run the selective scan as the formula says, channel by channel."""
    n_batch, n_tokens, channels = u.shape
    h = [[0.0 if state is None else state[i, e] for e in range(channels)]
         for i in range(n_batch)]  # fmt: skip
    y = torch.zeros_like(u)
    for i in range(n_batch):
        for e in range(channels):
            for t in range(n_tokens):
                step = delta[i, t, e]
                kept = torch.exp(step * a[e]) * h[i][e]
                h[i][e] = kept + step * u[i, t, e] * b[i, t]
                y[i, t, e] = c[i, t] @ h[i][e] + d[e] * u[i, t, e]
    return y, torch.stack([torch.stack(row) for row in h])


SCANNED = ("the output y", "the last state")


def test_selective_scan_by_hand():
    """One channel, one number of state, three tokens."""
    log2 = math.log(2.0)
    u = torch.tensor([[[1.0], [0.0], [1.0]]], dtype=torch.float64)
    delta = torch.tensor([[[log2], [log2], [2 * log2]]], dtype=torch.float64)
    a = torch.tensor([[-1.0]], dtype=torch.float64)
    b = torch.tensor([[[4.0], [1.0], [1.0]]], dtype=torch.float64)
    c = torch.tensor([[[1.0], [3.0], [1.0]]], dtype=torch.float64)
    d = torch.tensor([10.0], dtype=torch.float64)
    # 4 ln 2, then half of it, then a quarter of that and 2 ln 2 more
    y = torch.tensor([[[4.0], [6.0], [2.5]]], dtype=torch.float64) * log2
    y = y + 10 * u
    state = torch.tensor([[[2.5 * log2]]], dtype=torch.float64)
    got = selective_scan(u, delta, a, b, c, d)
    _assert_pair(got, (y, state), SCANNED)


def test_selective_scan_equals_transformers():
    """Outputs and last state are those of the transformers library."""
    torch.manual_seed(8)
    given = _scan_case(n_tokens=9)
    right = mamba_scan(*[x.clone() for x in given])
    got = selective_scan(*given)
    _assert_pair(got, right, SCANNED, tolerance=1e-5)
    ### BEGIN HIDDEN TESTS
    for sizes in ((6, 5, 4, 2), (1, 3, 2, 1), (4, 4, 4, 4), (5, 1, 6, 3)):
        given = _scan_case(*sizes)
        right = _selective(*given)
        copies = [x.clone() for x in given]
        got = selective_scan(*copies)
        _assert_pair(got, right, SCANNED, f", {sizes[0]} tokens,")
        _assert_unchanged(copies, given, ("u", "delta", "a", "b", "c", "d"))
    single = [x.float() for x in given]
    right = [x.float() for x in right]
    _assert_pair(selective_scan(*single), right, SCANNED, " in float32")
    given = _scan_case(n_tokens=400, channels=2, n_state=2, batch=1)
    given[2].fill_(-4.0)
    got = selective_scan(*given)
    assert got[0].isfinite().all(), (
        "After 400 tokens that forget fast, the output has infinities or NaN. "
        "The product of all decays since the beginning is 0 by then, and 1 "
        "divided by it infinite. Decay the state from token to token."
    )
    right = _selective(*given)
    _assert_pair(got, right, SCANNED, ", 400 tokens that forget fast,")
    ### END HIDDEN TESTS


def test_selective_scan_goes_on():
    """A text read in two parts, with the state handed on, is as if whole."""
    torch.manual_seed(9)
    u, delta, a, b, c, d = _scan_case(n_tokens=7)
    y, last = _selective(u, delta, a, b, c, d)
    _, middle = _selective(u[:, :4], delta[:, :4], a, b[:, :4], c[:, :4], d)
    kept = middle.clone()
    got = selective_scan(
        u[:, 4:], delta[:, 4:], a, b[:, 4:], c[:, 4:], d, middle
    )
    _assert_pair(got, (y[:, 4:], last), SCANNED, " of the second part")
    assert_close(middle, kept, "state, which must not change,")
    ### BEGIN HIDDEN TESTS
    start = (u[:, :1], delta[:, :1], a, b[:, :1], c[:, :1], d)
    zeros = torch.zeros(2, 5, 4, dtype=torch.float64)
    first = _selective(*start)
    got = selective_scan(*start, state=zeros)
    _assert_pair(got, first, SCANNED, ", from a state of zeros,")
    ### END HIDDEN TESTS


def test_mamba_equals_transformers():
    """With the same weights, the output is that of the library's mixer."""
    torch.manual_seed(10)
    answer, oracle = mixer_twins(MambaBlock, d_model=6, d_state=5, d_conv=4)
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    right = oracle(x.clone()).detach()
    assert_close(answer(x), right, "the output", 1e-5)
    ### BEGIN HIDDEN TESTS
    again = "the output of a second call, with the same text,"
    assert_close(answer(x), right, again, 1e-5)
    for d_model, d_state, d_conv, n_tokens in (
        (20, 3, 2, 5),
        (4, 8, 3, 2),
        (10, 10, 4, 1),
        (6, 4, 1, 3),
    ):
        answer, oracle = mixer_twins(MambaBlock, d_model, d_state, d_conv)
        x = torch.randn(3, n_tokens, d_model, dtype=torch.float64)
        right = oracle(x.clone()).detach()
        when = f"the output, C = {d_model}, N = {d_state}, {d_conv} taps,"
        assert_close(answer(x), right, when, 1e-5)
    ### END HIDDEN TESTS


def test_mamba_hides_the_future():
    """A token's output does not change when a later token does."""
    torch.manual_seed(11)
    answer, _ = mixer_twins(MambaBlock, d_model=6, d_state=5, d_conv=4)
    x = torch.randn(1, 7, 6, dtype=torch.float64)
    output = answer(x)
    assert isinstance(output, torch.Tensor), "The output is one tensor."
    assert output.shape == x.shape, (
        "The output should have the shape of x, (1, 7, 6)."
    )
    changed = x.repeat(6, 1, 1)  # copy t - 1: token t is another
    changed[torch.arange(6), torch.arange(1, 7)] += 1.0
    after = answer(changed)
    for t in range(1, 7):
        assert_close(
            after[t - 1, :t],
            output[0, :t],
            f"the output of the first {t} tokens, after the next one changed,",
        )


def test_mamba_can_be_trained():
    """Every weight gets the gradient that it gets in the library's mixer."""
    torch.manual_seed(12)
    answer, oracle = mixer_twins(MambaBlock, d_model=6, d_state=5, d_conv=4)
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    names = [name for name, _ in oracle.named_parameters()]
    right = torch.autograd.grad(
        oracle(x).square().sum(), list(oracle.parameters())
    )
    ours = dict(answer.named_parameters())
    got = _gradients(answer(x), [ours[n] for n in names])
    for name, grad, expected in zip(names, got, right, strict=True):
        assert grad is not None, f"No gradient reaches {name}."
        assert_close(grad, expected, f"the gradient by {name}", 1e-4)


def _ssd_case(n_tokens, n_heads=3, width=4, n_state=5, batch=2):
    """Draw what a chunked scan is given."""
    x = torch.randn(batch, n_tokens, n_heads, width, dtype=torch.float64)
    log_a = -torch.rand(batch, n_tokens, n_heads, dtype=torch.float64) - 0.01
    b, c = torch.randn(2, batch, n_tokens, n_state, dtype=torch.float64)
    return x, log_a, b, c


def _ssd(x, log_a, b, c):
    """Run the recurrence of Mamba-2, one token at a time."""
    h = torch.zeros(*x[:, 0].shape, b.shape[-1], dtype=x.dtype)
    outputs = []
    for t in range(x.shape[1]):
        new = x[:, t, :, :, None] * b[:, t, None, None, :]
        h = log_a[:, t].exp()[..., None, None] * h + new
        outputs.append((h * c[:, t, None, None, :]).sum(-1))
    return torch.stack(outputs, 1), h


def test_ssd_equals_the_recurrence():
    """Outputs and last state do not depend on the size of the chunks."""
    torch.manual_seed(13)
    given = _ssd_case(n_tokens=11)
    right = _ssd(*given)
    for chunk in (4, 11, 50):
        got = ssd_chunked(*given, chunk)
        _assert_pair(got, right, SCANNED, f" with chunks of {chunk}")
    ### BEGIN HIDDEN TESTS
    copies = [x.clone() for x in given]
    for chunk in (1, 2, 3, 5, 6, 10):
        got = ssd_chunked(*copies, chunk=chunk)
        _assert_pair(got, right, SCANNED, f" with chunks of {chunk}")
    _assert_unchanged(copies, given, ("x", "log_a", "b", "c"))
    for sizes in ((8, 4, 4, 4, 4), (1, 1, 2, 3, 1), (16, 2, 3, 3, 1)):
        given = _ssd_case(*sizes)
        right = _ssd(*given)
        got = ssd_chunked(*given, chunk=4)
        _assert_pair(got, right, SCANNED, f", {sizes[0]} tokens,")
    _assert_pair(ssd_chunked(*given), right, SCANNED)
    single = [x.float() for x in given]
    got = ssd_chunked(*single, chunk=5)
    right = [x.float() for x in right]
    _assert_pair(got, right, SCANNED, " in float32")
    ### END HIDDEN TESTS


def test_ssd_equals_transformers():
    """Outputs and last state are those of the library's Mamba-2."""
    torch.manual_seed(14)
    given = [x.float() for x in _ssd_case(n_tokens=20)]
    right = mamba2_scan(*[x.clone() for x in given], chunk=8)
    got = ssd_chunked(*given, chunk=8)
    _assert_pair(got, right, SCANNED, tolerance=1e-4)


def test_ssd_survives_strong_decay():
    """A state that forgets all at once overflows nothing, nor do gradients."""
    torch.manual_seed(15)
    x, log_a, b, c = _ssd_case(n_tokens=12)
    log_a = log_a * torch.tensor([0.0, 1.0, 900.0]).double()
    right = _ssd(x, log_a, b, c)
    got = ssd_chunked(x, log_a, b, c, chunk=5)
    _assert_pair(got, right, SCANNED, " where much is forgotten")
    ### BEGIN HIDDEN TESTS
    leaves = [v.clone().requires_grad_() for v in (x, log_a, b, c)]
    expected = torch.autograd.grad(_ssd(*leaves)[0].square().sum(), leaves)
    y = ssd_chunked(*leaves, chunk=5)[0]
    assert y.requires_grad, (
        "No gradient flows through the output: compute with tensors from the "
        "first line to the last."
    )
    grads = _gradients(y, leaves)
    names = ("x", "log_a", "b", "c")
    for name, grad, value in zip(names, grads, expected, strict=True):
        assert grad is not None, f"No gradient reaches {name}."
        assert_close(grad, value, f"the gradient by {name}")
    x, log_a, b, c = _ssd_case(n_tokens=640, n_heads=1, batch=1)
    log_a[:, :512], log_a[:, 512:] = -500.0, -0.01
    right = [v.float() for v in _ssd(x, log_a, b, c)]
    single = [v.float() for v in (x, log_a, b, c)]
    got = ssd_chunked(*single, chunk=16)
    when = ", in float32, where chunks of slow decay follow fast ones,"
    _assert_pair(got, right, SCANNED, when, 1e-3)
    ### END HIDDEN TESTS


def test_ssd_works_chunk_by_chunk():
    """No T × T matrix is made, and there is no loop over tokens."""
    torch.manual_seed(16)
    n = 600
    given = _ssd_case(n, n_heads=1, width=2, n_state=3, batch=1)
    right = _ssd(*given)
    with Watch() as seen:
        ssd_chunked(*given, chunk=24)
    most = 8 * n * n // 4
    assert seen.largest < most, (
        f"The largest tensor that was made has {seen.largest:,} bytes. That "
        f"is a matrix of all {n} × {n} pairs; one of 24 × 24 has "
        f"{8 * 24 * 24:,}. Hand the state from chunk to chunk instead."
    )
    few = []  # how many calls, and the largest tensor
    for chunk in (10, 50):
        with Watch() as seen:
            ssd_chunked(*given, chunk=chunk)
        few.append((sum(seen.calls.values()), seen.largest))
    # Small tensors, as of a loop over tokens, say nothing here.
    assert few[0] != few[1] or few[0][1] <= 8 * n * 2 * 3, (
        "This works the same with chunks of 10 and of 50: it calls "
        f"{few[0][0]} operators, and the largest tensor has {few[0][1]:,} "
        "bytes. Cut the text into chunks of the size that is asked for."
    )
    calls = []
    for chunk in (50, 200):
        part = [v[:, : 3 * chunk] for v in given]
        with Watch() as seen:
            got = ssd_chunked(*part, chunk)
        calls.append(sum(seen.calls.values()))
    assert calls[1] < 2 * calls[0], (
        f"This calls {calls[0]} of PyTorch's operators for 3 chunks of 50 "
        f"tokens and {calls[1]} for 3 of 200: it goes through the tokens one "
        "by one. Within a chunk, use matrix products."
    )
    _assert_pair(got, right, SCANNED, f" of {n} tokens")
