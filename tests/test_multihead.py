"""Checks of chapter 03; a student does not see the hidden lines."""

import torch
import torch.nn.functional as F
from torch import nn

from contextlab.checks import assert_close
from contextlab.twins import attention_twins, block_twins, gpt2_block
from solutions.multihead import (
    MultiHeadAttention,
    TransformerBlock,
    induction_score,
    merge_heads,
    previous_token_score,
    split_heads,
)


def test_split_heads_by_hand():
    """Each head gets its own channels of every token."""
    x = torch.tensor(
        [[[10.0, 11.0, 12.0, 13.0],  # token 1, channels 0 to 3
          [20.0, 21.0, 22.0, 23.0],  # token 2
          [30.0, 31.0, 32.0, 33.0]]]  # token 3
    )  # fmt: skip
    heads = split_heads(x, 2)
    first = torch.tensor([[10.0, 11.0], [20.0, 21.0], [30.0, 31.0]])
    second = torch.tensor([[12.0, 13.0], [22.0, 23.0], [32.0, 33.0]])
    expected = torch.stack([first, second])[None]  # (1, 2, 3, 2)
    assert_close(heads, expected, "split_heads(x, 2)")


def test_split_heads_of_any_size():
    """Head h holds channels h·D to (h + 1)·D, for any B, T, C and H."""
    torch.manual_seed(1)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    heads = split_heads(x, 4)
    shape = tuple(heads.shape)
    assert shape == (2, 4, 5, 3), (
        "4 heads of 2 texts of 5 tokens with 12 channels should have shape "
        f"(2, 4, 5, 3), but have {shape}."
    )
    ### BEGIN HIDDEN TESTS
    for n_heads in (1, 2, 3, 4, 6, 12):
        heads = split_heads(x, n_heads)
        width = 12 // n_heads
        expected = torch.stack(
            [x[..., h * width : (h + 1) * width] for h in range(n_heads)], 1
        )
        assert_close(heads, expected, f"split_heads(x, {n_heads})")
    turned = torch.randn(12, 5, 2, dtype=torch.float64).permute(2, 1, 0)
    expected = torch.stack([turned[..., :6], turned[..., 6:]], 1)
    assert_close(split_heads(turned, 2), expected, "split_heads of a view")
    for n_heads in (5, 24):
        refusal = (
            "split_heads should raise ValueError: 12 channels don't split "
            f"into {n_heads} heads. But it"
        )
        try:
            split_heads(x, n_heads)
        except (ValueError, RuntimeError):
            continue
        except Exception as error:
            name = type(error).__name__
            raise AssertionError(f"{refusal} raised {name}.") from error
        raise AssertionError(f"{refusal} raised nothing.")
    leaf = x.clone().requires_grad_()
    heads = split_heads(leaf, 4)
    assert heads.requires_grad, (
        "No gradient comes back through split_heads, so c_attn could not be "
        "trained: rearrange the tensor itself, without .data, detach or numpy."
    )
    (grad,) = torch.autograd.grad(heads.square().sum(), leaf)
    assert_close(grad, 2 * x, "the gradient that split_heads sends back")
    ### END HIDDEN TESTS


def test_merge_heads_by_hand():
    """The heads of a token stand side by side, the first one first."""
    first = torch.tensor([[10.0, 11.0], [20.0, 21.0], [30.0, 31.0]])
    second = torch.tensor([[12.0, 13.0], [22.0, 23.0], [32.0, 33.0]])
    merged = merge_heads(torch.stack([first, second])[None])
    expected = torch.tensor(
        [[[10.0, 11.0, 12.0, 13.0],
          [20.0, 21.0, 22.0, 23.0],
          [30.0, 31.0, 32.0, 33.0]]]
    )  # fmt: skip
    assert_close(merged, expected, "merge_heads of two heads")


def test_merge_heads_of_any_size():
    """Merging gives every token its H·D channels back."""
    torch.manual_seed(2)
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    shape = tuple(merge_heads(x).shape)
    assert shape == (2, 5, 12), (
        "4 heads of width 3 should merge into 12 channels, shape (2, 5, 12), "
        f"but the shape is {shape}."
    )
    ### BEGIN HIDDEN TESTS
    for sizes in ((2, 4, 5, 3), (1, 1, 4, 6), (1, 6, 6, 6), (2, 3, 1, 5)):
        x = torch.randn(sizes, dtype=torch.float64)
        expected = torch.cat(list(x.unbind(1)), -1)
        assert_close(merge_heads(x), expected, f"merge_heads, heads {sizes},")
        # the same heads, laid out in memory as split_heads leaves them
        view = x.transpose(1, 2).contiguous().transpose(1, 2)
        assert_close(merge_heads(view), expected, "merge_heads of a view")
    leaf = x.clone().requires_grad_()
    merged = merge_heads(leaf)
    assert merged.requires_grad, (
        "No gradient comes back through merge_heads, so no head could be "
        "trained: rearrange the tensor itself, without .data, detach or numpy."
    )
    (grad,) = torch.autograd.grad(merged.square().sum(), leaf)
    assert_close(grad, 2 * x, "the gradient that merge_heads sends back")
    ### END HIDDEN TESTS


def test_multihead_equals_pytorch():
    """Without a mask, the output is that of nn.MultiheadAttention."""
    torch.manual_seed(3)
    answer, oracle = attention_twins(MultiHeadAttention, d_model=12, n_heads=4)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    output, _ = answer(x)
    assert_close(output, oracle(x, x, x)[0], "the output of 4 heads")
    ### BEGIN HIDDEN TESTS
    for n_heads in (1, 2, 6):
        answer, oracle = attention_twins(MultiHeadAttention, 18, n_heads)
        x = torch.randn(3, 7, 18, dtype=torch.float64)
        output, _ = answer(x)
        assert_close(output, oracle(x, x, x)[0], f"the output, H = {n_heads},")
    x.requires_grad_()
    ours = [x, answer.c_attn.weight, answer.c_proj.weight]
    loss = answer(x)[0].square().sum()
    grads = torch.autograd.grad(loss, ours, allow_unused=True)
    theirs = [x, oracle.in_proj_weight, oracle.out_proj.weight]
    right = torch.autograd.grad(oracle(x, x, x)[0].square().sum(), theirs)
    for name, got, expected in zip(
        ("x", "c_attn", "c_proj"), grads, right, strict=True
    ):
        assert got is not None, (
            f"No gradient reaches {name}, so nothing can be trained through "
            "it: compute with tensors from the first line to the last."
        )
        assert_close(got, expected, f"the gradient by {name}", 1e-4)
    ### END HIDDEN TESTS


def test_multihead_returns_the_weights_of_each_head():
    """Every head has weights of its own, and each row sums to one."""
    torch.manual_seed(4)
    answer, oracle = attention_twins(MultiHeadAttention, d_model=12, n_heads=4)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    _, weights = answer(x)
    shape = tuple(getattr(weights, "shape", ()))
    assert shape == (2, 4, 5, 5), (
        "The weights of 4 heads, from 5 queries to 5 keys, should have shape "
        f"(2, 4, 5, 5), but have {shape}."
    )
    ones = torch.ones(2, 4, 5, dtype=torch.float64)
    assert_close(weights.sum(-1), ones, "the sum of each row of weights")
    ### BEGIN HIDDEN TESTS
    expected = oracle(x, x, x, average_attn_weights=False)[1]
    assert_close(weights, expected, "the weights of 4 heads")
    answer, oracle = attention_twins(MultiHeadAttention, 6, 1)
    for sizes in ((1, 5, 6), (1, 1, 6)):
        x = torch.randn(sizes, dtype=torch.float64)
        expected = oracle(x, x, x, average_attn_weights=False)[1]
        assert_close(answer(x)[1], expected, f"the weights of x {sizes}")
    ### END HIDDEN TESTS


def test_multihead_obeys_the_mask():
    """True = may attend, in every head, whatever shape the mask has."""
    torch.manual_seed(5)
    answer, oracle = attention_twins(MultiHeadAttention, d_model=12, n_heads=4)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    output, weights = answer(x, causal)
    assert not weights[..., ~causal].any(), (
        "Where the mask is False, every head's weight should be exactly 0."
    )
    changed = x.clone()
    changed[:, -1] += 1.0
    assert_close(
        answer(changed, causal)[0][:, :-1],
        output[:, :-1],
        "the output of tokens 1 to 4, after token 5 changed,",
    )
    ### BEGIN HIDDEN TESTS
    padding = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    any_heads = torch.rand(2, 4, 5, 5) > 0.5
    any_heads |= torch.eye(5, dtype=torch.bool)
    masks = (causal, padding[:, None, None], any_heads, any_heads[0])
    for mask in (*masks, any_heads[:, :1]):
        blocked = ~mask.expand(2, 4, 5, 5).reshape(8, 5, 5)
        right = oracle(x, x, x, attn_mask=blocked, average_attn_weights=False)
        size = tuple(mask.shape)
        output, weights = answer(x, mask)
        assert_close(weights, right[1], f"the weights, mask {size},")
        assert_close(output, right[0], f"the output, mask {size},")
    # padding on the left: the first two tokens of text 2 may attend to nothing
    left = torch.tensor([[True] * 5, [False] * 2 + [True] * 3])
    mask = causal & left[:, None, None]  # (2, 1, 5, 5)
    output, weights = answer(x, mask)
    silent = torch.zeros(4, 2, 5, dtype=torch.float64)
    to_nothing = "of two tokens that may attend to nothing"
    assert_close(weights[1, :, :2], silent, f"the weights {to_nothing}")
    bias = oracle.out_proj.bias.expand(2, 12)
    what = f"the output {to_nothing}, c_proj's bias alone,"
    assert_close(output[1, :2], bias, what)
    blocked = ~mask.expand(2, 4, 5, 5).reshape(8, 5, 5)
    right = oracle(x, x, x, attn_mask=blocked)[0]
    assert_close(output[0], right[0], "the output of a text beside a padded")
    assert_close(output[1, 2:], right[1, 2:], "the output after padding")
    ### END HIDDEN TESTS


def test_block_equals_pytorch():
    """The output is that of PyTorch's pre-LN layer under a causal mask."""
    torch.manual_seed(6)
    answer, oracle = block_twins(TransformerBlock, d_model=12, n_heads=4)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    output, _ = answer(x)
    assert_close(output, oracle(x, src_mask=future), "the output of the block")
    ### BEGIN HIDDEN TESTS
    for n_tokens in (1, 7):
        answer, oracle = block_twins(TransformerBlock, 18, 3)
        x = torch.randn(3, n_tokens, 18, dtype=torch.float64)
        future = torch.ones(n_tokens, n_tokens, dtype=torch.bool).triu(1)
        output, _ = answer(x)
        expected = oracle(x, src_mask=future)
        assert_close(output, expected, f"the output for {n_tokens} tokens")
    layers = [answer.ln_1, answer.attn.c_attn, answer.attn.c_proj]
    layers += [answer.ln_2, answer.mlp["c_fc"], answer.mlp["c_proj"]]
    x.requires_grad_()
    ours = [x, *(layer.weight for layer in layers)]
    grads = torch.autograd.grad(
        answer(x)[0].square().sum(), ours, allow_unused=True
    )
    assert all(grad is not None for grad in grads), (
        "No gradient reaches some layers, so they can't be trained: use all "
        "of them, and compute with tensors from the first to the last line."
    )
    layers = [oracle.norm1, oracle.self_attn, oracle.self_attn.out_proj]
    layers += [oracle.norm2, oracle.linear1, oracle.linear2]
    right = torch.autograd.grad(
        oracle(x, src_mask=future).square().sum(),
        [x, *(getattr(m, "in_proj_weight", None) if m is oracle.self_attn
              else m.weight for m in layers)],
    )  # fmt: skip
    names = ("x", "ln_1", "c_attn", "attn.c_proj", "ln_2", "c_fc", "c_proj")
    for name, got, expected in zip(names, grads, right, strict=True):
        assert_close(got, expected, f"the gradient by {name}", 1e-4)
    short = torch.randn(2, 3, 18, dtype=torch.float64)
    expected = oracle(short, src_mask=future[:3, :3])
    assert_close(answer(short)[0], expected, "the output for another length")
    ### END HIDDEN TESTS


def test_block_hides_the_future():
    """A token's output does not change when a later token does."""
    torch.manual_seed(7)
    answer, oracle = block_twins(TransformerBlock, d_model=12, n_heads=4)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    output, weights = answer(x)
    for t in range(1, 5):
        changed = x.clone()
        changed[:, t] += torch.randn(12, dtype=x.dtype)
        assert_close(
            answer(changed)[0][:, :t],
            output[:, :t],
            f"the output of the first {t} tokens, after the next one changed,",
        )
    shape = tuple(getattr(weights, "shape", ()))
    assert shape == (2, 4, 5, 5), (
        "The block should return the weights of its 4 heads too, of shape "
        f"(2, 4, 5, 5), but their shape is {shape}."
    )
    ### BEGIN HIDDEN TESTS
    normed = oracle.norm1(x)
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = oracle.self_attn(
        normed, normed, normed, attn_mask=future, average_attn_weights=False
    )[1]
    assert_close(weights, expected, "the weights that the block returns")
    # one block reads texts of 1, 5 and 9 tokens
    answer, oracle = block_twins(TransformerBlock, d_model=12, n_heads=4)
    answer(torch.randn(2, 1, 12, dtype=torch.float64))
    for n_tokens in (5, 9):
        x = torch.randn(2, n_tokens, 12, dtype=torch.float64)
        future = torch.ones(n_tokens, n_tokens, dtype=torch.bool).triu(1)
        expected = oracle(x, src_mask=future)
        what = f"the output for {n_tokens} tokens, after a shorter text,"
        assert_close(answer(x)[0], expected, what)
    ### END HIDDEN TESTS


def test_block_writes_to_the_stream():
    """Branches that write nothing leave the residual stream as it was."""
    torch.manual_seed(8)
    x = torch.randn(2, 5, 12, dtype=torch.float64)

    def silence(layer):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)

    answer, oracle = block_twins(TransformerBlock, d_model=12, n_heads=4)
    silence(answer.attn.c_proj)
    silence(answer.mlp["c_proj"])
    assert_close(answer(x)[0], x, "the stream after two silent branches")
    ### BEGIN HIDDEN TESTS
    answer, oracle = block_twins(TransformerBlock, d_model=12, n_heads=4)
    silence(answer.attn.c_proj)
    hidden = F.gelu(oracle.linear1(oracle.norm2(x)), approximate="tanh")
    expected = x + oracle.linear2(hidden)
    assert_close(answer(x)[0], expected, "the stream after the MLP alone")
    answer, oracle = block_twins(TransformerBlock, d_model=12, n_heads=4)
    silence(answer.mlp["c_proj"])
    normed = oracle.norm1(x)
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    heard = oracle.self_attn(normed, normed, normed, attn_mask=future)[0]
    assert_close(answer(x)[0], x + heard, "the stream after attention alone")
    ### END HIDDEN TESTS


def test_block_loads_gpt2():
    """With the weights of a GPT-2 block, the output is GPT-2's."""
    torch.manual_seed(9)
    oracle = gpt2_block(d_model=12, n_heads=4)
    block = TransformerBlock(12, 4).double()
    block.load_gpt2(oracle.state_dict())
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    mask = torch.zeros(1, 1, 5, 5).double().masked_fill(future, -torch.inf)
    expected = oracle(x, attention_mask=mask)
    assert_close(block(x)[0], expected, "the output with GPT-2's weights")
    ### BEGIN HIDDEN TESTS
    for d_model, n_heads in ((18, 3), (10, 1)):
        oracle = gpt2_block(d_model, n_heads)
        before = {k: v.clone() for k, v in oracle.state_dict().items()}
        block = TransformerBlock(d_model, n_heads).double()
        state = oracle.state_dict()
        kept = dict(state)
        block.load_gpt2(state)
        same = [state.get(name) is value for name, value in kept.items()]
        assert all(same), "load_gpt2 should leave its dictionary alone."
        theirs = {p.data_ptr() for p in oracle.parameters()}
        for name, p in block.named_parameters():
            assert p.requires_grad, f"{name} can't be trained any more."
            assert p.data_ptr() not in theirs, (
                f"{name} shares its memory with GPT-2's: copy the numbers, "
                "or training one model would change the other."
            )
        x = torch.randn(2, 5, d_model, dtype=torch.float64)
        expected = oracle(x, attention_mask=mask)
        assert_close(
            block(x)[0], expected, f"the output, C = {d_model}, H = {n_heads},"
        )
        for name, value in oracle.state_dict().items():
            assert_close(value, before[name], f"GPT-2's own {name}")
    ### END HIDDEN TESTS


def test_previous_token_score_by_hand():
    """The weights just below the diagonal count, and nothing else."""
    weights = torch.tensor(
        [[1.0, 0.0, 0.0, 0.0],
         [0.6, 0.4, 0.0, 0.0],
         [0.1, 0.7, 0.2, 0.0],
         [0.2, 0.1, 0.5, 0.2]], dtype=torch.float64
    )  # fmt: skip
    expected = torch.tensor(0.6, dtype=torch.float64)  # (0.6 + 0.7 + 0.5) / 3
    assert_close(
        previous_token_score(weights), expected, "previous_token_score"
    )


def test_previous_token_score_of_each_head():
    """Every head of every sequence gets a score of its own."""
    itself = torch.eye(5)  # query t attends to t
    previous = itself.roll(-1, dims=1)  # to t − 1
    following = itself.roll(1, dims=1)  # to t + 1
    first = torch.stack([itself, previous, following])
    second = torch.stack([previous, itself, following])
    scores = previous_token_score(torch.stack([first, second]))
    expected = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert_close(scores, expected, "the scores of 2 sequences and 3 heads")
    ### BEGIN HIDDEN TESTS
    torch.manual_seed(10)
    for sizes in ((2, 2), (3, 3), (4, 7, 7), (2, 3, 5, 5), (2, 1, 3, 6, 6)):
        weights = torch.rand(sizes, dtype=torch.float64).softmax(-1)
        expected = torch.stack(
            [weights[..., t, t - 1] for t in range(1, sizes[-1])]
        ).mean(0)
        kept = weights.clone()
        got = previous_token_score(weights)
        assert_close(got, expected, f"the score of weights {sizes}")
        assert_close(weights, kept, "the weights, which must not change,")
    weights[..., 2, :] = 0.0  # a query that may attend to nothing
    expected = torch.stack([weights[..., t, t - 1] for t in range(1, 6)])
    got = previous_token_score(weights)
    assert_close(got, expected.mean(0), "the score with a row of zeros")
    turned = torch.rand(2, 3, 6, 6, dtype=torch.float64).mT
    expected = torch.stack([turned[..., t, t - 1] for t in range(1, 6)])
    got = previous_token_score(turned)
    assert_close(got, expected.mean(0), "the score of a transposed view")
    ### END HIDDEN TESTS


def test_induction_score_of_two_heads():
    """The head that looks up what came next scores 1, other heads 0."""
    n_tokens, period = 6, 3  # for example A B C A B C
    weights = torch.zeros(3, n_tokens, n_tokens, dtype=torch.float64)
    for t in range(n_tokens):
        weights[0, t, max(0, t - period + 1)] = 1.0  # what came next
        weights[1, t, max(0, t - period)] = 1.0  # the same token
        weights[2, t, max(0, t - 1)] = 1.0  # the previous token
    expected = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert_close(
        induction_score(weights, period), expected, "the scores of three heads"
    )


def test_induction_score_begins_in_the_second_round():
    """Queries of the first round do not count."""
    torch.manual_seed(11)
    weights = torch.rand(6, 6, dtype=torch.float64).tril()
    weights = weights / weights.sum(-1, keepdim=True)
    expected = (weights[3, 1] + weights[4, 2] + weights[5, 3]) / 3
    assert_close(induction_score(weights, 3), expected, "induction_score")
    ### BEGIN HIDDEN TESTS
    for n_tokens in (5, 8, 13):
        for period in range(2, n_tokens):
            sizes = (2, 3, n_tokens, n_tokens)
            weights = torch.rand(sizes, dtype=torch.float64).softmax(-1)
            weights[..., n_tokens - 1, :] = 0.0  # may attend to nothing
            kept = weights.clone()
            expected = sum(
                weights[..., t, t - period + 1]
                for t in range(period, n_tokens)
            )
            assert_close(
                induction_score(weights, period),
                expected / (n_tokens - period),
                f"the score of {n_tokens} tokens, period {period},",
            )
            assert_close(weights, kept, "the weights, which must not change,")
    turned = torch.rand(2, 3, 6, 6, dtype=torch.float64).mT
    expected = sum(turned[..., t, t - 3] for t in (4, 5)) / 2
    got = induction_score(turned, 4)
    assert_close(got, expected, "the score of a transposed view")
    ### END HIDDEN TESTS
