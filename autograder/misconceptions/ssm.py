"""Mistakes of chapter 12, *State space models*."""

import math

import torch
import torch.nn.functional as F

from autograder.misconceptions import Mistake
from contextlab.spies import Watch

# Parts of the reference that several mistakes change.
_MEAN = "mean = torch.expm1(x) / x.masked_fill(x == 0, 1.0)"
_HELD = "return x.exp(), mean * delta[..., None] * b[..., None, :]"
_STEP = "h = a[:, t] * h + x[:, t]"
_START = (
    "h = torch.zeros_like(x[:, 0]) if initial is None else initial\n"
    "    states = []"
)
_JOIN_X = "x = torch.cat([x[:, :reach], late_a * early_x + late_x], 1)"
_JOIN_A = "a = torch.cat([a[:, :reach], late_a * early_a], 1)"
_ROUND = "while reach < n_tokens:"
_INPUT = "x = (delta * u)[..., None] * b[..., None, :]"
_READ = "(states * c[..., None, :]).sum(-1)"
_CONV = "self.conv1d(u.mT)[..., : x.shape[1]].mT"
_SCAN = "selective_scan(u, delta, -self.A_log.exp(), b, c, self.D)"
_KEPT = "span.masked_fill(future, -math.inf).exp()"


def _draw(seed):
    """Return a function that draws normal numbers in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return normal


def _copies(tensors):
    return [x.clone() for x in tensors]


def _seen(call, n_tokens):
    """Say how an answer works, by what it makes and calls."""
    with Watch() as seen:
        call()
    if seen.largest > 8 * n_tokens * n_tokens // 4:
        return "with a matrix of all pairs of tokens"
    if sum(seen.calls.values()) >= n_tokens:
        return "token by token"
    return "by few large steps"


def probe_discretize(discretize, seed):
    """Discretise one number, several, and some that hardly decay."""
    normal = _draw(seed)
    one = torch.ones(1, dtype=torch.float64)
    for delta, a, b in (
        (0.5 * one, -2 * one[None], 3 * one),
        (normal(2, 3).exp(), -normal(3, 4).exp(), normal(2, 4)),
        (2 * one, torch.zeros(1, 2, dtype=torch.float64), normal(2)),
        (one, torch.full((1, 2), -1e-13, dtype=torch.float64), normal(2)),
        (one, torch.full((1, 2), -5e-5, dtype=torch.float64), 1 + one),
    ):
        inputs = {"delta": delta, "a": a, "b": b}
        yield inputs, lambda x=(delta, a, b): discretize(*_copies(x))


def _decays_and_inputs(normal, *shape):
    a = torch.tanh(normal(*shape)).masked_fill(normal(*shape) > 1.2, 0.0)
    return a, normal(*shape)


def probe_scan_sequential(scan_sequential, seed):
    """Scan one text, then several, from zeros and from a state."""
    normal = _draw(seed)
    for shape in ((1, 3), (2, 5, 3)):
        a, x = _decays_and_inputs(normal, *shape)
        inputs = {"a": a, "x": x}
        yield inputs, lambda g=(a, x): scan_sequential(*_copies(g))
    initial = normal(2, 3)
    inputs = {"a": a, "x": x, "initial": initial}
    yield inputs, lambda: scan_sequential(*_copies((a, x, initial)))
    again = x.clone()

    def look():
        scan_sequential(a.clone(), again)
        return again

    yield {"x, looked at after the call": again}, look


def probe_scan_parallel(scan_parallel, seed):
    """Scan texts of several lengths, also where nearly all is forgotten."""
    normal = _draw(seed)
    for shape in ((1, 2), (1, 3), (1, 4), (2, 6, 3), (1, 17, 2)):
        a, x = _decays_and_inputs(normal, *shape)
        yield {"a": a, "x": x}, lambda g=(a, x): scan_parallel(*_copies(g))
    a, x = _decays_and_inputs(normal, 1, 8)
    a = a.abs() + 0.1  # no zero, and none below
    yield {"a": a, "x": x}, lambda: scan_parallel(*_copies((a, x)))
    a = torch.full((1, 24), 1e-20, dtype=torch.float64)
    x = normal(1, 24)
    yield {"a": a, "x": x}, lambda: scan_parallel(*_copies((a, x)))
    a, x = normal(2, 1, 700).tanh().abs() + 0.1
    yield (
        {"T": 700},
        lambda: _seen(lambda: scan_parallel(*_copies((a, x))), 700),
    )


def _scan_inputs(normal, n_batch, n_tokens, channels, n_state):
    return (
        normal(n_batch, n_tokens, channels),
        F.softplus(normal(n_batch, n_tokens, channels)),
        -normal(channels, n_state).exp(),
        normal(n_batch, n_tokens, n_state),
        normal(n_batch, n_tokens, n_state),
        normal(channels),
    )


def probe_selective_scan(selective_scan, seed):
    """Scan two tokens, then more of a batch, then from a state."""
    normal = _draw(seed)
    names = ("u", "delta", "a", "b", "c", "d")
    for sizes in ((1, 1, 1, 2), (1, 2, 1, 1), (2, 5, 4, 4), (2, 5, 3, 2)):
        given = _scan_inputs(normal, *sizes)
        inputs = dict(zip(names, given, strict=True))
        yield inputs, lambda g=given: selective_scan(*_copies(g))
    state = normal(2, 3, 2)
    yield (
        inputs | {"state": state},
        lambda: selective_scan(*_copies((*given, state))),
    )
    fast = list(_scan_inputs(normal, 1, 400, 1, 1))
    fast[1], fast[2] = fast[1] + 0.5, torch.full_like(fast[2], -4.0)
    yield {"T": 400, "a": -4.0}, lambda: selective_scan(*_copies(fast))


def _weights(normal, d_model, d_state, d_conv):
    """Draw the weights of a block, by their names."""
    inner, rank = 2 * d_model, math.ceil(d_model / 16)
    shapes = {
        "A_log": (inner, d_state),
        "D": (inner,),
        "in_proj.weight": (2 * inner, d_model),
        "conv1d.weight": (inner, 1, d_conv),
        "conv1d.bias": (inner,),
        "x_proj.weight": (rank + 2 * d_state, inner),
        "dt_proj.weight": (inner, rank),
        "dt_proj.bias": (inner,),
        "out_proj.weight": (d_model, inner),
    }
    return {name: 0.6 * normal(*shape) for name, shape in shapes.items()}


def probe_mamba_block(block, seed):
    """Run a narrow block on one token and on two, then a wider one."""
    normal = _draw(seed)

    def run(sizes, state, x):
        layer = block(*sizes).double()
        layer.load_state_dict(state, strict=False)
        return layer(x.clone())

    for sizes, shape in (
        ((2, 1, 2), (1, 1, 2)),
        ((2, 1, 2), (1, 2, 2)),
        ((6, 4, 4), (2, 7, 6)),
    ):
        state, x = _weights(normal, *sizes), normal(*shape)
        inputs = dict(
            zip(("d_model", "d_state", "d_conv"), sizes, strict=True)
        )
        yield inputs | {"x": x}, lambda g=(sizes, state, x): run(*g)

    def untrained():
        """Name the weights that no gradient reaches."""
        layer = block(*sizes).double()
        layer.load_state_dict(state, strict=False)
        weights = dict(layer.named_parameters())
        grads = torch.autograd.grad(
            layer(x.clone()).square().sum(),
            list(weights.values()),
            allow_unused=True,
        )
        pairs = zip(weights, grads, strict=True)
        return sorted(name for name, grad in pairs if grad is None)

    yield inputs | {"x": x, "asked for": "gradients"}, untrained


def probe_ssd_chunked(ssd_chunked, seed):
    """Run one chunk, several, a ragged one, and where much is forgotten."""
    normal = _draw(seed)
    names = ("x", "log_a", "b", "c")

    def draw(n_batch, n_tokens, n_heads, width, n_state):
        return (
            normal(n_batch, n_tokens, n_heads, width),
            -F.softplus(normal(n_batch, n_tokens, n_heads)),
            *(normal(n_batch, n_tokens, n_state) for _ in range(2)),
        )

    for sizes, chunk in (
        ((1, 1, 1, 1, 1), 1),
        ((1, 2, 1, 1, 1), 2),
        ((1, 3, 1, 1, 1), 1),
        ((2, 8, 3, 2, 4), 4),
        ((2, 8, 3, 2, 4), 8),
        ((2, 7, 3, 2, 4), 3),
    ):
        given = draw(*sizes)
        inputs = dict(zip(names, given, strict=True)) | {"chunk": chunk}
        yield inputs, lambda g=given, n=chunk: ssd_chunked(*_copies(g), n)
    x, log_a, b, c = draw(1, 6, 1, 1, 1)
    given = (x, 900 * log_a, b, c)
    inputs = dict(zip(names, given, strict=True)) | {"chunk": 3}
    yield inputs, lambda: ssd_chunked(*_copies(given), 3)
    ones = torch.ones(1, 640, 1)
    log_a = -0.01 * ones
    log_a[:, :512] = -500.0
    right = sum(math.exp(-0.01 * t) for t in range(129))

    def keeps_digits():
        """Say whether the last state is right to a part in 5,000."""
        given = (ones[..., None], log_a, ones, ones)
        state = ssd_chunked(*_copies(given), 16)[1]
        return abs(float(state.sum()) - right) < right / 5_000

    yield {"log_a": "512 times -500, then 128 times -0.01"}, keeps_digits
    long = draw(1, 400, 1, 2, 3)
    for chunk in (20, 200):
        yield (
            {"T": 400, "chunk": chunk},
            lambda n=chunk: _seen(lambda: ssd_chunked(*_copies(long), n), 400),
        )


PROBES = {
    "discretize": probe_discretize,
    "scan_sequential": probe_scan_sequential,
    "scan_parallel": probe_scan_parallel,
    "selective_scan": probe_selective_scan,
    "MambaBlock": probe_mamba_block,
    "ssd_chunked": probe_ssd_chunked,
}


def _bilinear(delta, a, b):
    """Discretise by the trapezium rule, as S4 does."""
    x = delta[..., None] * a / 2
    return (1 + x) / (1 - x), delta[..., None] / (1 - x) * b[..., None, :]


def _scan_in_place(a, x, initial=None):
    """Write the states over the inputs."""
    if initial is not None:
        x[:, 0] += a[:, 0] * initial
    for t in range(1, x.shape[1]):
        x[:, t] += a[:, t] * x[:, t - 1]
    return x


def _scan_backwards(a, x, initial=None):
    """Run from the last token to the first."""
    h = torch.zeros_like(x[:, 0]) if initial is None else initial
    states = []
    for t in reversed(range(x.shape[1])):
        h = a[:, t] * h + x[:, t]
        states.append(h)
    return torch.stack(states[::-1], 1)


def _scan_of_last_only(a, x, initial=None):
    """Return the last state alone."""
    h = torch.zeros_like(x[:, 0]) if initial is None else initial
    for t in range(x.shape[1]):
        h = a[:, t] * h + x[:, t]
    return h


def _reads_before(u, delta, a, b, c, d, state=None):
    """Read the state as it was before the token came."""
    h = torch.zeros_like(u[:, 0, :, None] * b[:, 0, None])
    h = h if state is None else state
    outputs = []
    for t in range(u.shape[1]):
        outputs.append((h * c[:, t, None]).sum(-1) + d * u[:, t])
        step = delta[:, t, :, None]
        h = (step * a).exp() * h + step * u[:, t, :, None] * b[:, t, None]
    return torch.stack(outputs, 1), h


def _by_running_sums(u, delta, a, b, c, d, state=None):
    """Undo the decay of every input, add up, and decay again."""
    total = (delta[..., None] * a).cumsum(1)  # (B, T, E, N)
    x = (delta * u)[..., None] * b[..., None, :]
    states = total.exp() * ((-total).exp() * x).cumsum(1)
    if state is not None:
        states = states + total.exp() * state[:, None]
    return (states * c[..., None, :]).sum(-1) + d * u, states[:, -1]


def _one_by_one(a, x):
    """Scan token by token."""
    h, states = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        h = a[:, t] * h + x[:, t]
        states.append(h)
    return torch.stack(states, 1)


def _by_cumprod(a, x):
    """Divide by what is kept since the beginning."""
    kept = a.cumprod(1)
    return kept * (x / kept).cumsum(1)


def _by_a_matrix(a, x):
    """Write down what every token keeps of every other."""
    n_tokens = x.shape[1]
    kept = torch.ones_like(a)[:, :, None] * torch.ones_like(a)[:, None]
    steps = a[:, :, None].expand_as(kept)  # (B, t, s, ...)
    t, s = torch.arange(n_tokens)[:, None], torch.arange(n_tokens)
    below = (t > s).reshape(1, n_tokens, n_tokens, *[1] * (a.ndim - 2))
    kept = torch.where(below, steps, kept).cumprod(1)
    past = (t >= s).reshape(below.shape)
    return (torch.where(past, kept, 0.0) * x[:, None]).sum(2)


def _new_a_with_old_x(a, x):
    """Replace a before it is used."""
    reach = 1
    while reach < x.shape[1]:
        a = torch.cat([a[:, :reach], a[:, reach:] * a[:, :-reach]], 1)
        joined = a[:, reach:] * x[:, :-reach] + x[:, reach:]
        x = torch.cat([x[:, :reach], joined], 1)
        reach *= 2
    return x


def _padded_to_a_power(a, x):
    """Scan as many tokens as the last power of two has."""
    n_tokens = 1 << (x.shape[1].bit_length() - 1)
    done = _one_by_one_in_rounds(a[:, :n_tokens], x[:, :n_tokens])
    return torch.cat([done, x[:, n_tokens:]], 1)


def _one_by_one_in_rounds(a, x):
    reach = 1
    while reach < x.shape[1]:
        x = torch.cat(
            [x[:, :reach], a[:, reach:] * x[:, :-reach] + x[:, reach:]], 1
        )
        a = torch.cat([a[:, :reach], a[:, reach:] * a[:, :-reach]], 1)
        reach *= 2
    return x


def _ssd_at_once(x, log_a, b, c, chunk=64):
    """Take the whole text as a single chunk."""
    total = log_a.cumsum(1).mT
    span = total[..., :, None] - total[..., None, :]
    future = torch.ones_like(span[0, 0], dtype=torch.bool).triu(1)
    kept = span.masked_fill(future, -math.inf).exp()
    y = torch.einsum("btn,bsn,bhts,bshp->bthp", c, b, kept, x)
    return y, torch.einsum("bshp,bsn,bhs->bhpn", x, b, kept[..., -1, :])


def _ssd_one_by_one(x, log_a, b, c, chunk=64):
    """Run the recurrence token by token."""
    h = x.new_zeros(*x[:, 0].shape, b.shape[-1])
    outputs = []
    for t in range(x.shape[1]):
        h = log_a[:, t, :, None, None].exp() * h
        h = h + x[:, t, :, :, None] * b[:, t, None, None]
        outputs.append((h * c[:, t, None, None]).sum(-1))
    return torch.stack(outputs, 1), h


MISTAKES = {
    "discretize": [
        Mistake(
            "Δ forgotten in ā",
            "Your ā is exp(a): the same for a short step and a long one. "
            "Then Δ can't say how much to forget. It is exp(Δ·a).",
            {"return x.exp()": "return a.exp().expand_as(x)"},
            "test_discretize_by_hand",
        ),
        Mistake(
            "wrong sign",
            "Your ā is exp(−Δ·a), larger than 1: the state grows without "
            "end. a is negative already; don't turn its sign.",
            {"return x.exp()": "return (-x).exp()"},
            "test_discretize_by_hand",
        ),
        Mistake(
            "Euler's ā",
            "Your ā is 1 + Δ·a, Euler's step. It is close for short steps, "
            "and negative for long ones; the exact one is exp(Δ·a).",
            {"return x.exp()": "return 1 + x"},
            "test_discretize_by_hand",
        ),
        Mistake(
            "Euler's b̄",
            "Your b̄ is Δ·b, which ignores that the input decays as well "
            "while the step lasts. Mamba's code takes this shortcut; asked "
            "for is the exact (exp(Δ·a) − 1) / a · b.",
            {
                _HELD: "return x.exp(), x / a.masked_fill(a == 0, 1.0)"
                " * b[..., None, :] if (a != 0).all() else "
                "delta[..., None] * b[..., None, :].expand_as(x)"
            },
            "test_discretize_by_hand",
        ),
        Mistake(
            "Δ forgotten in b̄",
            "Your b̄ is (exp(Δ·a) − 1) / (Δ·a) · b: divided by Δ, but never "
            "multiplied by it. Between the two stands Δ·b.",
            {"mean * delta[..., None] * b": "mean * b"},
            "test_discretize_by_hand",
        ),
        Mistake(
            "not divided by a",
            "Your b̄ is (exp(Δ·a) − 1)·b: the division by a is missing. Its "
            "sign is wrong, too, since a is negative.",
            {_HELD: "return x.exp(), torch.expm1(x) * b[..., None, :]"},
            "test_discretize_by_hand",
        ),
        Mistake(
            "0 / 0",
            "Where a is 0 you compute 0 / 0, which is NaN. There nothing "
            "decays: ā = 1, and b̄ is its limit Δ·b.",
            {
                _MEAN: "mean = torch.expm1(x) / x",
                "mean = mean.masked_fill(x == 0, 1.0)  # the limit": "",
            },
            "test_discretize_of_slow_decay",
        ),
        Mistake(
            "the limit too early",
            "You take the limit Δ·b already where x = Δ·a is small. It is "
            "right at 0 alone: at −0.0001 it is off by the fifth digit. "
            "torch.expm1(x) / x needs no threshold.",
            {
                "mean.masked_fill(x == 0, 1.0)": (
                    "mean.masked_fill(x.abs() < 1e-4, 1.0)"
                )
            },
            "test_discretize_of_slow_decay",
        ),
        Mistake(
            "exp(x) − 1",
            "exp(x) − 1 loses its digits where x is close to 0: there exp(x) "
            "is 1 and a bit, and the bit is rounded. torch.expm1(x) keeps "
            "them.",
            {"torch.expm1(x)": "(x.exp() - 1)"},
            "test_discretize_of_slow_decay",
        ),
        Mistake(
            "bilinear",
            "This is the bilinear rule (1 + Δa/2) / (1 − Δa/2), which S4 "
            "uses. Asked for is the exact solution for an input that is held "
            "constant.",
            _bilinear,
            "test_discretize_by_hand",
        ),
        Mistake(
            "b̄ and ā swapped",
            "You return b̄ first. ā comes first, then b̄.",
            {
                _HELD: "return mean * delta[..., None] * b[..., None, :], "
                "x.exp()"
            },
            "test_discretize_by_hand",
        ),
    ],
    "scan_sequential": [
        Mistake(
            "decays what has just come",
            "Your state is a_t·(h + x_t): the token's own input is decayed "
            "before anybody has read it. Decay the old state alone, then "
            "add.",
            {_STEP: "h = a[:, t] * (h + x[:, t])"},
            "test_scan_by_hand",
        ),
        Mistake(
            "no decay",
            "You add up the inputs and never multiply by a: nothing is "
            "forgotten.",
            {_STEP: "h = h + x[:, t]"},
            "test_scan_by_hand",
        ),
        Mistake(
            "the state before the token",
            "Your entry t is the state before token t has come. It is the "
            "state after it: update first, then keep.",
            {
                f"{_STEP}\n        states.append(h)": (
                    f"states.append(h)\n        {_STEP}"
                )
            },
            "test_scan_by_hand",
        ),
        Mistake(
            "the decay of the token before",
            "You multiply by a of the token before. What is kept when token "
            "t comes is a_t.",
            {_STEP: "h = a[:, t - 1] * h + x[:, t]"},
            "test_scan_of_any_shape",
        ),
        Mistake(
            "from the end",
            "You run from the last token to the first, so each state holds "
            "the future. Begin at token 0.",
            _scan_backwards,
            "test_scan_by_hand",
        ),
        Mistake(
            "a moving average",
            "Your input is multiplied by 1 − a. That is a moving average; "
            "the recurrence adds x_t as it is.",
            {_STEP: "h = a[:, t] * h + (1 - a[:, t]) * x[:, t]"},
            "test_scan_by_hand",
        ),
        Mistake(
            "initial ignored",
            "You begin at zero even where an initial state is given: the "
            "second part of a text knows nothing of the first.",
            {_START: "h, states = torch.zeros_like(x[:, 0]), []"},
            "test_scan_starts_from_a_state",
        ),
        Mistake(
            "initial not decayed",
            "You take the initial state as if it were the one after token 0. "
            "It is the one before: token 0 multiplies it by a_0, too.",
            {_STEP: ("h = (h if t == 0 else a[:, t] * h) + x[:, t]")},
            "test_scan_starts_from_a_state",
        ),
        Mistake(
            "the last state alone",
            "You return the last state alone. Return the state after every "
            "token, stacked along dimension 1.",
            _scan_of_last_only,
            "test_scan_by_hand",
        ),
        Mistake(
            "writes into x",
            "You write the states over x, which belongs to your caller. "
            "Collect them, and stack them at the end.",
            _scan_in_place,
            "test_scan_of_any_shape",
        ),
    ],
    "scan_parallel": [
        Mistake(
            "decays not combined",
            "You combine the inputs but leave a as it was. Two steps "
            "together keep a_late·a_early: without it every further round "
            "forgets too little.",
            {_JOIN_A: "pass"},
            "test_parallel_by_hand",
        ),
        Mistake(
            "the decay of the early half",
            "You multiply the early input by the early decay. What comes "
            "early is decayed by what comes late: a_late·x_early + x_late.",
            {"late_a * early_x + late_x": "early_a * early_x + late_x"},
            "test_parallel_of_any_length",
        ),
        Mistake(
            "the late half decays",
            "Your combination is x_early + a_early·x_late: late and early "
            "are swapped. The late input is added as it is.",
            {"late_a * early_x + late_x": "early_x + early_a * late_x"},
            "test_parallel_by_hand",
        ),
        Mistake(
            "one round too few",
            "You stop a round early: no state reaches back to the first "
            "token. Go on until the reach is at least T.",
            {_ROUND: "while 2 * reach < n_tokens:"},
            "test_parallel_by_hand",
        ),
        Mistake(
            "one step a round",
            "Your reach grows by 1 a round and not twofold. After the first "
            "round each entry covers two tokens, so the next partner is two "
            "tokens back.",
            {"reach *= 2": "reach += 1"},
            "test_parallel_by_hand",
        ),
        Mistake(
            "powers of two only",
            "Your scan is right for lengths that are powers of two and "
            "leaves the rest of a text as it was. The last tokens need their "
            "partners, too.",
            _padded_to_a_power,
            "test_parallel_of_any_length",
        ),
        Mistake(
            "the new a with the old x",
            "You combine a first, and then use the new a for x. Compute both "
            "from the same round's tensors, then replace both.",
            _new_a_with_old_x,
            "test_parallel_by_hand",
        ),
        Mistake(
            "divides by cumprod",
            "You divide by the running product of a. It is 0 after one zero, "
            "and underflows after a few dozen tokens, and 0 / 0 is NaN. "
            "Combine neighbours, without any division.",
            _by_cumprod,
            "test_parallel_survives_strong_decay",
        ),
        Mistake(
            "token by token",
            "The numbers are right, but this goes through the tokens one by "
            "one. Combine all neighbours at once: log₂ T rounds are enough.",
            _one_by_one,
            "test_parallel_takes_few_rounds",
        ),
        Mistake(
            "a matrix of all pairs",
            "The numbers are right, but you write down what every token "
            "keeps of every other: T × T numbers, attention's own cost.",
            _by_a_matrix,
            "test_parallel_takes_few_rounds",
        ),
    ],
    "selective_scan": [
        Mistake(
            "Δ forgotten in ā",
            "Your decay is exp(a), whatever Δ is: the model can't choose "
            "what to forget. It is exp(Δ·a).",
            {
                "(delta[..., None] * a).exp()": (
                    "a.exp().expand(*delta.shape, -1)"
                )
            },
            "test_selective_scan_by_hand",
        ),
        Mistake(
            "wrong sign",
            "Your decay is exp(−Δ·a), larger than 1: the state grows and "
            "grows. a is negative already.",
            {"(delta[..., None] * a).exp()": "(-delta[..., None] * a).exp()"},
            "test_selective_scan_by_hand",
        ),
        Mistake(
            "Δ forgotten in the input",
            "Your input is b·u without Δ. A step of length 0 would still "
            "write; it should change nothing.",
            {_INPUT: "x = u[..., None] * b[..., None, :]"},
            "test_selective_scan_by_hand",
        ),
        Mistake(
            "the exact b̄",
            "Your input is discretised exactly. That is the paper's equation "
            "4; the released code, and its weights, use Δ·b·u.",
            {_INPUT: "x = (a_bar - 1) / a * (u[..., None] * b[..., None, :])"},
            "test_selective_scan_by_hand",
        ),
        Mistake(
            "D skipped",
            "The term d·u is missing: what goes straight from input to "
            "output.",
            {" + d * u": ""},
            "test_selective_scan_by_hand",
        ),
        Mistake(
            "D goes through the step",
            "Your d is multiplied by Δ·u. It takes u as it is: this path "
            "doesn't know the state, nor the step.",
            {" + d * u": " + d * (delta * u)"},
            "test_selective_scan_by_hand",
        ),
        Mistake(
            "b and c swapped",
            "You write with c and read with b. b is how an input enters, c "
            "how the state is read.",
            {
                _INPUT: "x = (delta * u)[..., None] * c[..., None, :]",
                _READ: "(states * b[..., None, :]).sum(-1)",
            },
            "test_selective_scan_by_hand",
        ),
        Mistake(
            "reads before it writes",
            "Your output at t is read from the state before token t was "
            "written: a token can't hear itself. Write first, then read.",
            _reads_before,
            "test_selective_scan_by_hand",
        ),
        Mistake(
            "summed over the channels",
            "You sum over the channels, so that all channels get the same "
            "output. Sum over the N numbers of each channel's own state.",
            {
                _READ: (
                    "(states * c[..., None, :]).sum(-2).sum(-1, keepdim=True)"
                )
            },
            "test_selective_scan_equals_transformers",
        ),
        Mistake(
            "state ignored",
            "You begin at zero even where a state is given: the second part "
            "of a text knows nothing of the first.",
            {"scan_sequential(a_bar, x, state)": "scan_sequential(a_bar, x)"},
            "test_selective_scan_goes_on",
        ),
        Mistake(
            "divides by what is kept",
            "You divide by the product of all decays, or multiply by exp of "
            "a running sum. After some hundred tokens that forget fast it is "
            "0 or infinite, and the state NaN. Decay from token to token.",
            _by_running_sums,
            "test_selective_scan_equals_transformers",
        ),
        Mistake(
            "all states",
            "You return the states after all tokens. Return the last one: it "
            "is all that is needed to go on, and that it is small is the "
            "point.",
            {"return y, states[:, -1]": "return y, states"},
            "test_selective_scan_by_hand",
        ),
        Mistake(
            "the first state",
            "You return the state after the first token. Return the one "
            "after the last.",
            {"states[:, -1]": "states[:, 0]"},
            "test_selective_scan_by_hand",
        ),
    ],
    "MambaBlock": [
        Mistake(
            "the convolution sees the future",
            "Your convolution's outputs are taken from the end. The padding "
            "stands on both sides, so the first T outputs are the causal "
            "ones; the last T look ahead.",
            {_CONV: "self.conv1d(u.mT)[..., -x.shape[1] :].mT"},
            "test_mamba_hides_the_future",
        ),
        Mistake(
            "no convolution",
            "You skip the convolution: a token's input is its own alone.",
            {f"u = {_CONV}  # no later token": ""},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "no SiLU after the convolution",
            "There is no SiLU after your convolution.",
            {"u = F.silu(u)": ""},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "no SiLU on the gate",
            "You multiply by the gate as it is. It goes through SiLU first.",
            {"y * F.silu(gate)": "y * gate"},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "a sigmoid gate",
            "Your gate goes through a sigmoid. It is SiLU here, x·sigmoid(x).",
            {"y * F.silu(gate)": "y * torch.sigmoid(gate)"},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "no gate",
            "You drop the gate: the second half of what in_proj gives "
            "multiplies the output.",
            {"self.out_proj(y * F.silu(gate))": "self.out_proj(y)"},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "the gate first",
            "You take the first half of in_proj for the gate. The input "
            "comes first.",
            {"u, gate = self.in_proj": "gate, u = self.in_proj"},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "no softplus",
            "Your delta can be negative: softplus is missing. A negative "
            "step would make the state grow.",
            {"F.softplus(self.dt_proj(delta))": "self.dt_proj(delta)"},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "exp for softplus",
            "Your delta is exp(...). It is softplus here, ln(1 + exp(...)), "
            "which grows only linearly.",
            {"F.softplus(self.dt_proj(delta))": "self.dt_proj(delta).exp()"},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "the bias of dt_proj skipped",
            "You use dt_proj's weight but not its bias, which sets the step "
            "length that a channel starts from.",
            {"self.dt_proj(delta)": "F.linear(delta, self.dt_proj.weight)"},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "a is positive",
            "Your a is +exp(A_log), so that the state grows. It is "
            "−exp(A_log).",
            {"-self.A_log.exp()": "self.A_log.exp()"},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "A_log is not exponentiated",
            "You use −A_log for a. The parameter is a logarithm, so that a "
            "stays negative whatever training does: a = −exp(A_log).",
            {"-self.A_log.exp()": "-self.A_log"},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "b and c swapped",
            "You take c for b. x_proj gives delta, then b, then c.",
            {_SCAN: _SCAN.replace("b, c", "c, b")},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "D skipped",
            "Your block leaves D out: what goes from the input straight to "
            "the output, past the state.",
            {_SCAN: _SCAN.replace("self.D", "0 * self.D")},
            "test_mamba_equals_transformers",
        ),
        Mistake(
            "A is not trained",
            "The numbers are right, but no gradient reaches A_log: detach "
            "and .data cut it off, so training can't change it.",
            {"-self.A_log.exp()": "-self.A_log.data.exp()"},
            "test_mamba_can_be_trained",
        ),
    ],
    "ssd_chunked": [
        Mistake(
            "chunks are islands",
            "Your chunks don't know each other: the state that comes in is "
            "never read. Add c·h, decayed since the chunk began.",
            {" + total.exp().mT[..., None] * before": ""},
            "test_ssd_equals_the_recurrence",
        ),
        Mistake(
            "the old state does not decay in the chunk",
            "Every token of a chunk reads the incoming state as it was when "
            "the chunk began. It decays with every token: exp(total).",
            {"total.exp().mT[..., None] * before": "before"},
            "test_ssd_equals_the_recurrence",
        ),
        Mistake(
            "the old state is lost",
            "The state that you hand on holds the last chunk alone. Decay "
            "the old one by the whole chunk, and add.",
            {"h = total[..., -1, None, None].exp() * h + new": "h = new"},
            "test_ssd_equals_the_recurrence",
        ),
        Mistake(
            "the state does not decay between chunks",
            "You add the new chunk's state to the old one without decaying "
            "it by the chunk that has passed.",
            {"h = total[..., -1, None, None].exp() * h + new": "h = h + new"},
            "test_ssd_equals_the_recurrence",
        ),
        Mistake(
            "what is written does not decay",
            "All inputs of a chunk enter the new state at full strength. "
            "Those that came early have decayed until the chunk's end.",
            {"left * xs, bs)": "xs, bs)"},
            "test_ssd_equals_the_recurrence",
        ),
        Mistake(
            "no causal mask",
            "Within a chunk, your tokens read the future, and with weights "
            "that grow: exp of a positive number. Mask what lies above the "
            "diagonal.",
            {_KEPT: "span.exp()"},
            "test_ssd_equals_the_recurrence",
        ),
        Mistake(
            "the diagonal is masked",
            "Your tokens don't read themselves. The state at t holds token t "
            "already: keep the diagonal.",
            {
                ".triu(1)": ".triu(0)",
                "left = kept[..., -1, :]": (
                    "left = (total[..., -1:] - total).exp()"
                ),
            },
            "test_ssd_equals_the_recurrence",
        ),
        Mistake(
            "no decay",
            "Within a chunk your weights are c·b alone: plain linear "
            "attention. Each is multiplied by what is kept from s to t.",
            {
                "(cs @ bs.mT)[:, None] * kept": (
                    "(cs @ bs.mT)[:, None].expand_as(kept).tril()"
                )
            },
            "test_ssd_equals_the_recurrence",
        ),
        Mistake(
            "the token's own decay counts",
            "From s to t you count the decay of token s too. Its input comes "
            "after that decay: what counts are tokens s + 1 to t, the "
            "difference of two running sums.",
            {
                "total[..., None, :]  #": (
                    "(total - log_a[:, part].mT)[..., None, :]  #"
                )
            },
            "test_ssd_equals_the_recurrence",
        ),
        Mistake(
            "masked after exp",
            "You exponentiate first and multiply by a mask of zeros. Above "
            "the diagonal exp overflows to infinity where much is forgotten, "
            "and 0·∞ is NaN: put −∞ there before exp.",
            {_KEPT: "span.exp() * ~future"},
            "test_ssd_survives_strong_decay",
        ),
        Mistake(
            "two factors",
            "You write exp(total_t − total_s) as exp(total_t) / "
            "exp(total_s). That is right on paper; where much is forgotten "
            "both are 0, and 0 / 0 is NaN. Subtract first.",
            {
                _KEPT: (
                    "(total.exp()[..., :, None] / total.exp()[..., None, :])"
                    ".masked_fill(future, 0.0)"
                )
            },
            "test_ssd_survives_strong_decay",
        ),
        Mistake(
            "one running sum for the whole text",
            "Your running sum of log_a goes through the whole text. Where "
            "much was forgotten long ago it is huge, and the digits of what "
            "comes later are rounded off. Begin anew in each chunk.",
            {
                "total = log_a[:, part].cumsum(1).mT": (
                    "total = log_a.cumsum(1)\n"
                    "        start = total[:, :first][:, -1:].sum(1, True)\n"
                    "        total = (total[:, part] - start).mT"
                )
            },
            "test_ssd_survives_strong_decay",
        ),
        Mistake(
            "softmax",
            "You take a softmax of the weights. There is none here: it is "
            "what keeps attention from being a recurrence.",
            {
                "(cs @ bs.mT)[:, None] * kept": (
                    "((cs @ bs.mT)[:, None] * kept)"
                    ".masked_fill(future, -math.inf).softmax(-1)"
                )
            },
            "test_ssd_equals_the_recurrence",
        ),
        Mistake(
            "b and c swapped",
            "You write with c and read with b. b is how an input enters, c "
            "how the state is read.",
            {
                "xs, bs, cs = x[:, part], b[:, part], c[:, part]": (
                    "xs, bs, cs = x[:, part], c[:, part], b[:, part]"
                )
            },
            "test_ssd_equals_the_recurrence",
        ),
        Mistake(
            "the whole text at once",
            "The numbers are right, but you make the T × T matrix: one chunk "
            "for the whole text, at attention's cost. Cut, and hand the "
            "state on.",
            _ssd_at_once,
            "test_ssd_works_chunk_by_chunk",
        ),
        Mistake(
            "token by token",
            "The numbers are right, but this runs the recurrence token by "
            "token. Within a chunk, use matrix products: that is what "
            "Mamba-2 is fast by.",
            _ssd_one_by_one,
            "test_ssd_works_chunk_by_chunk",
        ),
    ],
}
