"""Mistakes of chapter 03, *Many searches in parallel*."""

import torch
from torch import nn

from autograder.misconceptions import Mistake

SIZES = {  # of the layers that the given code makes, by the model's width
    "ln_1.weight": (1,),
    "ln_1.bias": (1,),
    "attn.c_attn.weight": (3, 1),
    "attn.c_attn.bias": (3,),
    "attn.c_proj.weight": (1, 1),
    "attn.c_proj.bias": (1,),
    "ln_2.weight": (1,),
    "ln_2.bias": (1,),
    "mlp.c_fc.weight": (4, 1),
    "mlp.c_fc.bias": (4,),
    "mlp.c_proj.weight": (1, 4),
    "mlp.c_proj.bias": (1,),
}


def _normal(generator, *shape):
    """Draw a tensor from the generator and nothing else, in float64."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _counted(*shape):
    """Return 0, 1, 2, … in the given shape."""
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return numbers.reshape(shape)


def _weights(generator, d_model, *, conv1d=False):
    """Draw the weights of a block; Conv1D stores matrices as (in, out)."""
    state = {}
    for name, sizes in SIZES.items():
        shape = [size * d_model for size in sizes]
        value = 0.7 * _normal(generator, *shape)
        state[name] = value.T if conv1d and value.ndim == 2 else value
    return state


def _of_attention(state):
    """Pick the weights of the attention layer, by its own names."""
    return {
        name.removeprefix("attn."): value
        for name, value in state.items()
        if name.startswith("attn.")
    }


def _softmaxed(generator, *shape):
    """Draw weights whose rows sum to one; no triangle of them is empty."""
    return _normal(generator, *shape).softmax(-1)


def probe_split_heads(split_heads, seed):
    """Split counted numbers, then random ones, then what can't be split."""
    generator = torch.Generator().manual_seed(seed)
    for x, n_heads in (
        (_counted(1, 2, 4), 2),
        (_counted(1, 4, 4), 2),
        (_counted(1, 3, 6), 3),
        (_normal(generator, 2, 5, 12), 4),
        (_counted(1, 2, 4), 3),
    ):
        inputs = {"x": x, "n_heads": n_heads}
        yield inputs, lambda x=x, n=n_heads: split_heads(x, n)


def probe_merge_heads(merge_heads, seed):
    """Merge counted numbers, then random ones."""
    generator = torch.Generator().manual_seed(seed)
    for x in (
        _counted(1, 2, 2, 2),
        _counted(1, 2, 3, 2),
        _normal(generator, 2, 4, 5, 3),
    ):
        yield {"x": x}, lambda x=x: merge_heads(x)


def probe_multi_head_attention(multihead, seed):
    """Attend by two narrow heads, then by four, with masks and without."""
    generator = torch.Generator().manual_seed(seed)

    def attend(state, n_heads, *args):
        layer = multihead(state["c_proj.bias"].shape[0], n_heads).double()
        layer.load_state_dict(state, strict=False)
        return layer(*args)

    eye = torch.eye(4, dtype=torch.float64)
    same = {
        "c_attn.weight": eye.repeat(3, 1),
        "c_attn.bias": torch.zeros(12, dtype=torch.float64),
        "c_proj.weight": eye,
        "c_proj.bias": torch.zeros(4, dtype=torch.float64),
    }
    x = _counted(1, 2, 4) / 4
    known = {"n_heads": 2, "every projection": "the identity", "x": x}
    yield known, lambda: attend(same, 2, x)
    state = _of_attention(_weights(generator, 12))
    tokens = _normal(generator, 2, 5, 12)
    inputs = {"n_heads": 4, "x": tokens}
    yield inputs, lambda: attend(state, 4, tokens)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    padding = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    for mask in (causal, padding[:, None, None]):
        inputs = {"n_heads": 4, "x": tokens, "mask": mask}
        yield inputs, lambda m=mask: attend(state, 4, tokens, m)
    nothing = torch.ones(5, 5, dtype=torch.bool).tril(-1)  # for the first
    inputs = {"n_heads": 4, "x": tokens, "mask": nothing}
    yield inputs, lambda: attend(state, 4, tokens, nothing)


def probe_transformer_block(block, seed):
    """Run a narrow and a wider block, then one with GPT-2's weights."""
    generator = torch.Generator().manual_seed(seed)

    def run(state, n_heads, x, gpt2=None):
        layer = block(x.shape[-1], n_heads).double()
        layer.load_state_dict(state, strict=False)
        if gpt2 is not None:
            layer.load_gpt2(gpt2)
        return layer(x)

    for n_tokens, d_model, n_heads in ((2, 4, 2), (5, 12, 4)):
        x = _normal(generator, 1, n_tokens, d_model)
        state = _weights(generator, d_model)
        inputs = {"n_heads": n_heads, "x": x}
        yield inputs, lambda s=state, h=n_heads, x=x: run(s, h, x)

    def run_twice():
        layer = block(d_model, n_heads).double()
        layer.load_state_dict(state, strict=False)
        layer(x[:, :1])
        return layer(x)

    inputs = {"n_heads": n_heads, "x": x, "read before": "the first token"}
    yield inputs, run_twice
    gpt2 = _weights(generator, d_model, conv1d=True)
    inputs = {"n_heads": n_heads, "x": x, "weights": "those of GPT-2"}
    yield inputs, lambda: run(state, n_heads, x, gpt2)


def probe_previous_token_score(previous_token_score, seed):
    """Score one small head, then several of several sequences."""
    generator = torch.Generator().manual_seed(seed)
    for shape in ((2, 2), (3, 3), (2, 4, 4), (2, 3, 5, 5)):
        weights = _softmaxed(generator, *shape)
        yield {"weights": weights}, lambda w=weights: previous_token_score(w)


def probe_induction_score(induction_score, seed):
    """Score one small head, then several, over two rounds and over three."""
    generator = torch.Generator().manual_seed(seed)
    for shape, period in (
        ((4, 4), 2),
        ((5, 5), 4),
        ((2, 8, 8), 5),
        ((2, 3, 10, 10), 3),
    ):
        weights = _softmaxed(generator, *shape)
        inputs = {"weights": weights, "period": period}
        yield inputs, lambda w=weights, p=period: induction_score(w, p)


PROBES = {
    "split_heads": probe_split_heads,
    "merge_heads": probe_merge_heads,
    "MultiHeadAttention": probe_multi_head_attention,
    "TransformerBlock": probe_transformer_block,
    "previous_token_score": probe_previous_token_score,
    "induction_score": probe_induction_score,
}


def _largest_wins(weights):
    """Count queries instead of adding weights."""
    favourite = weights.argmax(-1)[..., 1:]
    before = torch.arange(favourite.shape[-1], device=weights.device)
    return (favourite == before).to(weights.dtype).mean(-1)


def _wraps_round(weights):
    """Take query 0 along, whose "previous" key is index −1, the last."""
    t = torch.arange(weights.shape[-1], device=weights.device)
    return weights[..., t, t - 1].mean(-1)


def _batch_lost(weights):
    """Average over the sequences too."""
    score = weights.diagonal(-1, -2, -1).mean(-1)
    return score.mean(0) if score.ndim > 1 else score


def _every_round(weights, period):
    """Add up what followed the token in all earlier rounds."""
    n_tokens = weights.shape[-1]
    total = torch.zeros_like(weights[..., 0, 0])
    for t in range(period, n_tokens):
        for s in range(t - period + 1, 0, -period):
            total = total + weights[..., t, s]
    return total / (n_tokens - period)


class _SharedProjection(nn.Module):
    """Gives every head the slice of channels of the first."""

    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.c_attn = nn.Linear(d_model, 3 * d_model)
        self.c_proj = nn.Linear(d_model, d_model)

    def forward(self, x, mask=None):
        from solutions.attention import attention

        width = x.shape[-1] // self.n_heads
        q, k, v = (part[..., :width] for part in self.c_attn(x).chunk(3, -1))
        if mask is not None and mask.ndim == 4:
            mask = mask[:, 0]
        output, weights = attention(q, k, v, mask)
        output = output.repeat(1, 1, self.n_heads)
        weights = weights.unsqueeze(1).repeat(1, self.n_heads, 1, 1)
        return self.c_proj(output), weights


_SPLIT = "x.unflatten(-1, (n_heads, -1)).transpose(1, 2)"
_MERGE = "x.transpose(1, 2).flatten(-2)"
_SPLIT_PART = "split_heads(part, self.n_heads)"
_PLAIN_SPLIT = "part.reshape(x.shape[0], self.n_heads, x.shape[1], -1)"
_RETURN = 'return x + self.mlp["c_proj"](hidden), weights'
_GELU = 'F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh")'
_MASK = "mask = causal_mask(x.shape[1], x.shape[1], device=x.device)"
_ATTEND = "self.attn(self.ln_1(x), mask)"
_TURNED = "value.T if value.ndim == 2 else value"
_OVER_STATE = "for name, value in state.items()"
_NOT_STRICT = {
    "self.load_state_dict(": (
        "(lambda part: self.load_state_dict(part, strict=False))("
    )
}
_MEAN = "follower[..., 1:].mean(-1)"

MISTAKES = {
    "split_heads": [
        Mistake(
            "a plain reshape",
            "Your shape is right, but the numbers are not where they belong: "
            "a reshape alone cuts the tensor in the order of memory, token by "
            "token, so a “head” gets all channels of some tokens instead of "
            "some channels of all tokens. Cut the channels first, giving "
            "(B, T, H, D), and only then swap the tokens and the heads.",
            {
                _SPLIT: "x.reshape(x.shape[0], n_heads, x.shape[1], -1)",
            },
            "test_split_heads_by_hand",
        ),
        Mistake(
            "transposed before the cut",
            "You swap tokens and channels first and reshape then, which "
            "mixes numbers of different tokens. The other way round: cut the "
            "channels, giving (B, T, H, D), then swap the tokens and the "
            "heads.",
            {
                _SPLIT: (
                    "x.transpose(1, 2).reshape("
                    "x.shape[0], n_heads, x.shape[1], -1)"
                ),
            },
            "test_split_heads_by_hand",
        ),
        Mistake(
            "the swap is forgotten",
            "You return (B, T, H, D): the channels are cut well, but the "
            "heads still stand behind the tokens. Attention works on the last "
            "two dimensions, so swap T and H.",
            {".transpose(1, 2)": ""},
            "test_split_heads_of_any_size",
        ),
        Mistake(
            "interleaved heads",
            "Your head h gets channels h, h + H, h + 2H, … Here, and in "
            "GPT-2, a head's channels are neighbours: the first D channels "
            "are the first head's. Cut C into (H, D), not into (D, H).",
            {
                "(n_heads, -1)).transpose(1, 2)": (
                    "(-1, n_heads)).permute(0, 3, 1, 2)"
                )
            },
            "test_split_heads_by_hand",
        ),
        Mistake(
            "H and D swapped",
            "You cut the channels into D heads of width H. The number of "
            "heads is given; the width of a head is what is left, C / H.",
            {"(n_heads, -1)": "(-1, n_heads)"},
            "test_split_heads_of_any_size",
        ),
        Mistake(
            "width before tokens",
            "You return (B, H, D, T). Each row of a head belongs to a token: "
            "(B, H, T, D).",
            {".transpose(1, 2)": ".permute(0, 2, 3, 1)"},
            "test_split_heads_of_any_size",
        ),
        Mistake(
            "heads folded into the batch",
            "You return (B·H, T, D). That works for attention, but here the "
            "heads keep a dimension of their own: (B, H, T, D).",
            {".transpose(1, 2)": ".transpose(1, 2).flatten(0, 1)"},
            "test_split_heads_of_any_size",
        ),
        Mistake(
            "heads before the batch",
            "You return (H, B, T, D). The batch comes first: (B, H, T, D).",
            {".transpose(1, 2)": ".movedim(2, 0)"},
            "test_split_heads_of_any_size",
        ),
        Mistake(
            "cuts the tokens",
            "You cut the text into H pieces. A head doesn't get a part of the "
            "text: it gets a part of the channels of every token.",
            {_SPLIT: "x.unflatten(1, (n_heads, -1))"},
            "test_split_heads_by_hand",
        ),
        Mistake(
            "returns its input",
            "You return x as it was: nothing was split.",
            {_SPLIT: "x"},
            "test_split_heads_by_hand",
        ),
    ],
    "merge_heads": [
        Mistake(
            "a plain reshape",
            "Your shape is right, but a row of your answer holds several "
            "tokens of one head, not all heads of one token: a reshape alone "
            "reads the numbers in the order (H, T, D). Swap heads and tokens "
            "first, then join the last two dimensions.",
            {_MERGE: "x.reshape(x.shape[0], x.shape[2], -1)"},
            "test_merge_heads_by_hand",
        ),
        Mistake(
            "interleaved heads",
            "You deal the heads out like cards: the first number of each "
            "head, then the second of each. The heads stand side by side, "
            "each in one piece: join (H, D), not (D, H).",
            {"transpose(1, 2)": "permute(0, 2, 3, 1)"},
            "test_merge_heads_by_hand",
        ),
        Mistake(
            "sums the heads",
            "You add the heads up. Then nobody can tell any longer which head "
            "said what: lay them side by side instead, H·D numbers a token.",
            {_MERGE: "x.sum(1)"},
            "test_merge_heads_by_hand",
        ),
        Mistake(
            "averages the heads",
            "You average the heads, which is the very compromise that several "
            "heads are there to avoid. Lay them side by side: H·D numbers a "
            "token.",
            {_MERGE: "x.mean(1)"},
            "test_merge_heads_by_hand",
        ),
        Mistake(
            "the first head only",
            "You return the first head alone; the others are lost.",
            {_MERGE: "x[:, 0]"},
            "test_merge_heads_by_hand",
        ),
        Mistake(
            "heads one below the other",
            "You return (B, H·T, D): the heads stand one below the other, as "
            "if the text were H times as long. They belong side by side.",
            {_MERGE: "x.flatten(1, 2)"},
            "test_merge_heads_of_any_size",
        ),
        Mistake(
            "tokens and width swapped",
            "You swap tokens and width (dimensions 2 and 3). Swap heads and "
            "tokens, dimensions 1 and 2, so that the heads of a token are "
            "neighbours.",
            {"transpose(1, 2)": "transpose(2, 3)"},
            "test_merge_heads_of_any_size",
        ),
        Mistake(
            "not joined",
            "You return (B, T, H, D): the heads of a token are neighbours "
            "already; what is left is to join the last two dimensions.",
            {".flatten(-2)": ""},
            "test_merge_heads_of_any_size",
        ),
        Mistake(
            "returns its input",
            "You return x as it was: nothing was merged.",
            {_MERGE: "x"},
            "test_merge_heads_by_hand",
        ),
    ],
    "MultiHeadAttention": [
        Mistake(
            "scaled by √C",
            "Your scores are divided by the square root of the model's width "
            "C. A head only compares D = C / H channels, so √D is its scale; "
            "with √C the weights are too flat. `attention` takes the scale "
            "from the width of q: give it the heads, already split.",
            {
                "attention(q, k, v, mask)": (
                    "attention(q / self.n_heads**0.5, k, v, mask)"
                )
            },
            "test_multihead_equals_pytorch",
        ),
        Mistake(
            "split without a transpose",
            "Your heads are cut by a plain reshape, so that a head holds all "
            "channels of some tokens instead of some channels of all tokens, "
            "and the causal mask no longer hides the future. Use split_heads.",
            {_SPLIT_PART: _PLAIN_SPLIT},
            "test_multihead_equals_pytorch",
        ),
        Mistake(
            "merged without a transpose",
            "Your heads are joined by a plain reshape, so that a token gets "
            "what one head said about several tokens. Use merge_heads.",
            {"merge_heads(output)": "output.reshape(x.shape)"},
            "test_multihead_equals_pytorch",
        ),
        Mistake(
            "no transpose at all",
            "Both your split and your merge are plain reshapes. The shapes "
            "fit, but with H heads a token now hears nothing but its own "
            "stretch of T / H tokens. Use split_heads and merge_heads.",
            {
                _SPLIT_PART: _PLAIN_SPLIT,
                "merge_heads(output)": "output.reshape(x.shape)",
            },
            "test_multihead_equals_pytorch",
        ),
        Mistake(
            "interleaved heads",
            "Your head h takes channels h, h + H, h + 2H, … A model trained "
            "this way would work, but GPT-2's weights wouldn't: there a "
            "head's channels are neighbours. Use split_heads and merge_heads.",
            {
                _SPLIT_PART: (
                    "part.unflatten(-1, (-1, self.n_heads))"
                    ".permute(0, 3, 1, 2)"
                ),
                "merge_heads(output)": "output.permute(0, 2, 3, 1).flatten(2)",
            },
            "test_multihead_equals_pytorch",
        ),
        Mistake(
            "q, k and v of a head side by side",
            "You read c_attn's output head by head: q, k, v of the first "
            "head, then of the second. Some models do (GPT-NeoX); here, as in "
            "GPT-2, all queries come first, then all keys, then all values.",
            {
                _SPLIT_PART: "part.transpose(1, 2)",
                "self.c_attn(x).chunk(3, -1)": (
                    "self.c_attn(x)"
                    ".unflatten(-1, (self.n_heads, 3, -1)).unbind(3)"
                ),
            },
            "test_multihead_equals_pytorch",
        ),
        Mistake(
            "all heads search alike",
            "Every head uses the weights of the first one: you have H heads, "
            "but one search. Each head has queries and keys of its own.",
            {
                "attention(q, k, v, mask)": (
                    "attention(q[:, :1].expand_as(q), "
                    "k[:, :1].expand_as(k), v, mask)"
                )
            },
            "test_multihead_returns_the_weights_of_each_head",
        ),
        Mistake(
            "the first head, H times",
            "All your heads read the first D channels of q, k and v, so they "
            "say the same H times. Head h has channels h·D to (h + 1)·D.",
            _SharedProjection,
            "test_multihead_returns_the_weights_of_each_head",
        ),
        Mistake(
            "one wide head",
            "You never split: this is one head as wide as the model. Split q, "
            "k and v into heads before attention and merge them afterwards.",
            {_SPLIT_PART: "part", "merge_heads(output)": "output"},
            "test_multihead_returns_the_weights_of_each_head",
        ),
        Mistake(
            "mask turned round",
            "You take True for “blocked”, as nn.MultiheadAttention does. Here "
            "True = may attend, as in `attention`: pass the mask on as it is.",
            {
                "attention(q, k, v, mask)": (
                    "attention(q, k, v, None if mask is None else ~mask)"
                )
            },
            "test_multihead_obeys_the_mask",
        ),
        Mistake(
            "NaN for a token that may attend to nothing",
            "A token that may attend to nothing, such as padding at the "
            "beginning of a text, gets NaN from PyTorch's softmax. Your "
            "`attention` gives it zeros: use it.",
            {
                "output, weights = attention(q, k, v, mask)": (
                    "scores = q @ k.mT / q.shape[-1] ** 0.5\n"
                    "        if mask is not None:\n"
                    "            low = float('-inf')\n"
                    "            scores = scores.masked_fill(~mask, low)\n"
                    "        weights = scores.softmax(-1)\n"
                    "        output = weights @ v"
                )
            },
            "test_multihead_obeys_the_mask",
        ),
        Mistake(
            "mask ignored",
            "Your mask has no effect: every token sees every token. Pass it "
            "on to `attention`.",
            {"attention(q, k, v, mask)": "attention(q, k, v)"},
            "test_multihead_obeys_the_mask",
        ),
        Mistake(
            "causal without being asked",
            "Without a mask, every token may attend to every token, but you "
            "hide the future. The causal mask is the block's decision: this "
            "layer only obeys.",
            {
                "attention(q, k, v, mask)": (
                    "attention(q, k, v, mask if mask is not None else "
                    "causal_mask(x.shape[1], x.shape[1]))"
                )
            },
            "test_multihead_equals_pytorch",
        ),
        Mistake(
            "queries and keys swapped",
            "You take the first third of c_attn's output for the keys and the "
            "second for the queries. The order is queries, keys, values.",
            {"q, k, v = (": "k, q, v = ("},
            "test_multihead_equals_pytorch",
        ),
        Mistake(
            "keys and values swapped",
            "You take the second third of c_attn's output for the values and "
            "the last for the keys. The order is queries, keys, values.",
            {"q, k, v = (": "q, v, k = ("},
            "test_multihead_equals_pytorch",
        ),
        Mistake(
            "no output projection",
            "You return the merged heads as they are. c_proj comes last: it "
            "is what lets a head write to any channel of the model.",
            {"self.c_proj(merge_heads(output))": "merge_heads(output)"},
            "test_multihead_equals_pytorch",
        ),
        Mistake(
            "returns its input",
            "You return x: whatever the heads found is thrown away.",
            {"self.c_proj(merge_heads(output)), weights": "x, weights"},
            "test_multihead_equals_pytorch",
        ),
        Mistake(
            "weights averaged over heads",
            "You return one matrix of weights, the mean of all heads. We want "
            "to look at each head: return (B, H, T, T).",
            {
                "merge_heads(output)), weights": (
                    "merge_heads(output)), weights.mean(1)"
                )
            },
            "test_multihead_returns_the_weights_of_each_head",
        ),
        Mistake(
            "the output alone",
            "You return the output alone. Return two things, the output and "
            "the weights: the rest of the chapter looks at the weights.",
            {"merge_heads(output)), weights": "merge_heads(output))"},
            "test_multihead_returns_the_weights_of_each_head",
        ),
    ],
    "TransformerBlock": [
        Mistake(
            "post-LN instead of pre-LN",
            "You normalise after each addition, as the Transformer of 2017 "
            "did. GPT-2 normalises what a branch reads and leaves the stream "
            "itself alone: x + branch(norm(x)).",
            {
                _ATTEND: "self.attn(x, mask)",
                "x = x + heard": "x = self.ln_1(x + heard)",
                "self.ln_2(x)": "x",
                _RETURN: (
                    'return self.ln_2(x + self.mlp["c_proj"](hidden)), weights'
                ),
            },
            "test_block_writes_to_the_stream",
        ),
        Mistake(
            "the stream is normalised",
            "You overwrite x by its normalised self before you add to it. "
            "Only the branch reads the norm; the stream that you add to is "
            "the x that came in.",
            {
                f"heard, weights = {_ATTEND}": (
                    "x = self.ln_1(x)\n"
                    "        heard, weights = self.attn(x, mask)"
                )
            },
            "test_block_writes_to_the_stream",
        ),
        Mistake(
            "attention's residual forgotten",
            "After attention you go on with what it wrote, and the stream "
            "that came in is lost. Add: x + attention.",
            {"x = x + heard": "x = heard"},
            "test_block_writes_to_the_stream",
        ),
        Mistake(
            "the MLP's residual forgotten",
            "You return what the MLP wrote, and the stream that it read is "
            "lost. Add: x + MLP.",
            {"return x + self.mlp": "return self.mlp"},
            "test_block_writes_to_the_stream",
        ),
        Mistake(
            "attention's writing lost",
            "Your MLP reads the stream after attention, but adds its output "
            "to the x from before, so what attention wrote is lost. Both "
            "write to the same stream, one after the other.",
            {
                "x = x + heard": "before, x = x, x + heard",
                "return x + self.mlp": "return before + self.mlp",
            },
            "test_block_writes_to_the_stream",
        ),
        Mistake(
            "both branches read the same x",
            "Your MLP reads the x from before attention, so that it can't use "
            "what the heads have just found (GPT-J does this to save time). "
            "In GPT-2 the MLP reads the stream after attention has written.",
            {
                "x = x + heard": "before, x = x, x + heard",
                "self.ln_2(x)": "self.ln_2(before)",
            },
            "test_block_equals_pytorch",
        ),
        Mistake(
            "exact GELU",
            "Your outputs are off in the fourth digit: that is GELU by the "
            "error function. GPT-2 uses the tanh approximation, and a model "
            "must be run with the activation that it was trained with.",
            {', approximate="tanh"': ""},
            "test_block_equals_pytorch",
        ),
        Mistake(
            "ReLU for GELU",
            "Your MLP cuts negative numbers off (ReLU). GPT-2's activation is "
            "GELU, by its tanh approximation.",
            {_GELU: 'F.relu(self.mlp["c_fc"](self.ln_2(x)))'},
            "test_block_equals_pytorch",
        ),
        Mistake(
            "no activation",
            "There is no activation between your two layers of the MLP, so "
            "they are one linear map, four times as dear. Put GELU between.",
            {_GELU: 'self.mlp["c_fc"](self.ln_2(x))'},
            "test_block_equals_pytorch",
        ),
        Mistake(
            "no causal mask",
            "Your tokens see the future: change the last token and the first "
            "outputs change too. A model trained so would learn to copy the "
            "answer. Give attention a causal mask.",
            {_ATTEND: "self.attn(self.ln_1(x))"},
            "test_block_hides_the_future",
        ),
        Mistake(
            "mask turned round",
            "Your mask is inverted: each token sees nothing but its future. "
            "Here True = may attend; pass causal_mask on as it is.",
            {_ATTEND: "self.attn(self.ln_1(x), ~mask)"},
            "test_block_hides_the_future",
        ),
        Mistake(
            "mask kept from the first text",
            "You make the mask once, for the first text, and keep it. A "
            "longer text then ends in an error or, after a text of one token, "
            "sees its future. Make the mask anew in every call.",
            {
                _MASK: (
                    'if not hasattr(self, "kept"):\n'
                    f"            self.kept = {_MASK[7:]}\n"
                    "        mask = self.kept[: x.shape[1], : x.shape[1]]"
                )
            },
            "test_block_hides_the_future",
        ),
        Mistake(
            "attention reads the raw stream",
            "Your attention reads x, not ln_1(x). Normalise what a branch "
            "reads.",
            {_ATTEND: "self.attn(x, mask)"},
            "test_block_equals_pytorch",
        ),
        Mistake(
            "the MLP reads the raw stream",
            "Your MLP reads x, not ln_2(x). Each branch normalises what it "
            "reads.",
            {"self.ln_2(x)": "x"},
            "test_block_equals_pytorch",
        ),
        Mistake(
            "ln_1 for both branches",
            "Your MLP is normalised by ln_1. It has a norm of its own, ln_2. "
            "In a fresh block the two are equal, so that this only shows once "
            "they are trained.",
            {"self.ln_2(x)": "self.ln_1(x)"},
            "test_block_equals_pytorch",
        ),
        Mistake(
            "no MLP",
            "Your block ends after attention. The MLP follows, with its own "
            "norm and its own addition.",
            {_RETURN: "return x, weights"},
            "test_block_equals_pytorch",
        ),
        Mistake(
            "returns its input",
            "You return x as it came: neither branch has written to it.",
            {"x = x + heard": "", _RETURN: "return x, weights"},
            "test_block_equals_pytorch",
        ),
        Mistake(
            "Conv1D weights as they are",
            "You copy GPT-2's matrices as they are, and PyTorch refuses: "
            "Conv1D stores (in, out), nn.Linear stores (out, in). Transpose "
            "the four projections.",
            {_TURNED: "value"},
            "test_block_loads_gpt2",
        ),
        Mistake(
            "the square matrix not transposed",
            "You transpose only where the shapes don't fit. attn.c_proj is "
            "square, so it fits both ways, and no error tells you that it is "
            "the wrong way round: transpose all four projections.",
            {
                _TURNED: (
                    "value if value.shape == self.state_dict()[name].shape "
                    "else value.T"
                )
            },
            "test_block_loads_gpt2",
        ),
        Mistake(
            "loads nothing",
            "After load_gpt2 the block still has its old weights: what you "
            "computed never reached its parameters.",
            {"self.load_state_dict(": "dict("},
            "test_block_loads_gpt2",
        ),
        Mistake(
            "norms not loaded",
            "Your load_gpt2 leaves ln_1 and ln_2 as they were. They were "
            "trained too: each has a weight and a bias.",
            {
                _OVER_STATE: f"{_OVER_STATE} if name[:3] != 'ln_'",
                **_NOT_STRICT,
            },
            "test_block_loads_gpt2",
        ),
        Mistake(
            "biases not loaded",
            "Your load_gpt2 loads the weights but not the biases. A fresh "
            "GPT-2 has zeros there; a trained one has not.",
            {
                _OVER_STATE: f"{_OVER_STATE} if name[-4:] != 'bias'",
                **_NOT_STRICT,
            },
            "test_block_loads_gpt2",
        ),
    ],
    "previous_token_score": [
        Mistake(
            "the token itself",
            "You read the main diagonal: the weight that each token gives to "
            "itself. The previous token is one key to the left: the diagonal "
            "just below.",
            {"offset=-1": "offset=0"},
            "test_previous_token_score_of_each_head",
        ),
        Mistake(
            "the next token",
            "You read the diagonal above the main one: key t + 1, the future. "
            "Rows are queries and columns keys, so key t − 1 is below.",
            {"offset=-1": "offset=1"},
            "test_previous_token_score_of_each_head",
        ),
        Mistake(
            "two tokens back",
            "You read key t − 2. The previous token is t − 1.",
            {"offset=-1": "offset=-2"},
            "test_previous_token_score_by_hand",
        ),
        Mistake(
            "divided by T",
            "You divide by T, but only T − 1 queries have a token before "
            "them: a perfect head would score less than 1.",
            {".mean(-1)": ".sum(-1) / weights.shape[-1]"},
            "test_previous_token_score_by_hand",
        ),
        Mistake(
            "query 0 wraps round",
            "You count query 0 too. It has no previous token, and index −1 is "
            "Python's way of saying the last one. Begin at t = 1.",
            _wraps_round,
            "test_previous_token_score_by_hand",
        ),
        Mistake(
            "sum instead of mean",
            "You add the weights up: your score grows with the length of the "
            "text. Take the mean over the queries.",
            {".mean(-1)": ".sum(-1)"},
            "test_previous_token_score_by_hand",
        ),
        Mistake(
            "one number for all heads",
            "You average over everything and get a single number. We want to "
            "compare heads: average over the queries only and keep the "
            "leading dimensions.",
            {".mean(-1)": ".mean()"},
            "test_previous_token_score_of_each_head",
        ),
        Mistake(
            "averaged over the batch",
            "You average over the first dimension too. Keep all leading "
            "dimensions; whoever calls can average them.",
            _batch_lost,
            "test_previous_token_score_of_each_head",
        ),
        Mistake(
            "every earlier token",
            "You count the weight on all earlier tokens. Only the token just "
            "before counts: key t − 1.",
            {
                "weights.diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1)": (
                    "weights.tril(-1).sum(-1)[..., 1:].mean(-1)"
                )
            },
            "test_previous_token_score_by_hand",
        ),
        Mistake(
            "counts winners",
            "You count how often the previous token has the largest weight. A "
            "head may spend 0.4 there and be beaten, or win with 0.1: average "
            "the weights themselves.",
            _largest_wins,
            "test_previous_token_score_by_hand",
        ),
    ],
    "induction_score": [
        Mistake(
            "the same token",
            "You read key t − period: the same token one round earlier. What "
            "an induction head wants is what came *next*: one key further on, "
            "t − period + 1.",
            {
                "offset=1 - period": "offset=-period",
                _MEAN: "follower.mean(-1)",
            },
            "test_induction_score_of_two_heads",
        ),
        Mistake(
            "one key too far",
            "You read key t − period + 2, the one after the next. What came "
            "next stands at t − period + 1.",
            {
                "offset=1 - period": "offset=2 - period",
                _MEAN: "follower[..., 2:].mean(-1)",
            },
            "test_induction_score_of_two_heads",
        ),
        Mistake(
            "the wrong way from the same token",
            "You read key t − period − 1, what came *before* the same token. "
            "Next is one to the right: t − period + 1.",
            {
                "offset=1 - period": "offset=-1 - period",
                _MEAN: "follower.mean(-1)",
            },
            "test_induction_score_of_two_heads",
        ),
        Mistake(
            "the future",
            "You read the diagonal above the main one. Rows are queries and "
            "columns keys, so earlier keys stand below: a negative offset.",
            {"offset=1 - period": "offset=period - 1"},
            "test_induction_score_of_two_heads",
        ),
        Mistake(
            "the previous token",
            "You read key t − 1. That is previous_token_score; here the key "
            "depends on the period: t − period + 1.",
            {"offset=1 - period": "offset=-1"},
            "test_induction_score_of_two_heads",
        ),
        Mistake(
            "the first round counts",
            "You count query period − 1 too. It is the last of the first "
            "round: its token has not been seen before, so there is nothing "
            "to look up. Begin at t = period.",
            {_MEAN: "follower.mean(-1)"},
            "test_induction_score_begins_in_the_second_round",
        ),
        Mistake(
            "begins one query late",
            "You leave out query `period`, the first of the second round. Its "
            "token has been seen before, so it counts.",
            {_MEAN: "follower[..., 2:].mean(-1)"},
            "test_induction_score_begins_in_the_second_round",
        ),
        Mistake(
            "divided by T",
            "You divide by T, but the first round has no part in the score: "
            "there are T − period queries to average over.",
            {_MEAN: "follower[..., 1:].sum(-1) / weights.shape[-1]"},
            "test_induction_score_of_two_heads",
        ),
        Mistake(
            "divided by the period",
            "You divide by the period. That is right for exactly two rounds "
            "and for nothing else: there are T − period queries.",
            {_MEAN: "follower[..., 1:].sum(-1) / period"},
            "test_induction_score_begins_in_the_second_round",
        ),
        Mistake(
            "sum instead of mean",
            "You add the weights up: a longer text scores more. Take the mean "
            "over the queries.",
            {_MEAN: "follower[..., 1:].sum(-1)"},
            "test_induction_score_of_two_heads",
        ),
        Mistake(
            "one number for all heads",
            "You average over everything and get a single number. We want to "
            "compare heads: average over the queries only.",
            {_MEAN: "follower[..., 1:].mean()"},
            "test_induction_score_of_two_heads",
        ),
        Mistake(
            "every earlier round",
            "You add up the weights on what came next in all earlier rounds. "
            "Only the last one counts here: key t − period + 1.",
            _every_round,
            "test_induction_score_begins_in_the_second_round",
        ),
    ],
}
