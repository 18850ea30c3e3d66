"""Reference answers for chapter 13, *Hybrid memory*."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from solutions.attention import attention_scores, softmax


class VectorMemory:
    """A notebook of keys and values that is searched exactly.

    Entries are numbered 0, 1, 2, … in the order in which they came: their
    positions. Nothing is ever lost. Keys, values and scores are of the
    memory's dtype.

    Source: Wu et al. 2022, section 3 (there, the search is approximate).
    """

    def __init__(
        self,
        key_width: int,
        value_width: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.keys = torch.empty(0, key_width, dtype=dtype)  # (N, D)
        self.values = torch.empty(0, value_width, dtype=dtype)  # (N, E)

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Write entries below those that are there.

        The memory keeps copies: if the caller changes these tensors later,
        it holds what was added.

        Args:
            keys: shape (n, D), any n ≥ 0.
            values: shape (n, E).
        """
        ### BEGIN SOLUTION
        self.keys = torch.cat([self.keys, keys])
        self.values = torch.cat([self.values, values])
        ### END SOLUTION

    def search(
        self, queries: Tensor, k: int, before: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Find the k entries whose keys match each query best.

        Args:
            queries: shape (T, D), of the memory's dtype.
            k: how many entries to find for each query, k ≥ 1.
            before: whole numbers, shape (T,). Query t finds only entries at
                positions less than ``before[t]``. None: all may be found.

        Returns:
            The scores q·k, not divided by √D, and the positions of these
            entries, an int64 tensor, both of shape (T, k), the best first. A
            query for which there are fewer than k entries gets scores of
            minus infinity and positions of -1 in the last places, as in
            ``faiss``.
        """
        ### BEGIN SOLUTION
        scores = queries @ self.keys.T  # (T, N)
        if before is not None:
            positions = torch.arange(len(self))
            scores = scores.masked_fill(
                positions >= before[:, None], -math.inf
            )
        missing = max(k - len(self), 0)
        scores = F.pad(scores, (0, missing), value=-math.inf)
        scores, positions = scores.topk(k)
        return scores, positions.masked_fill(scores == -math.inf, -1)
        ### END SOLUTION

    def fetch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and the values at these positions.

        Args:
            positions: whole numbers, any shape (...); -1 stands for no entry.

        Returns:
            Keys, shape (..., D), and values, shape (..., E); zeros where the
            position is -1.
        """
        ### BEGIN SOLUTION
        known = positions >= 0
        found = []
        for stored in (self.keys, self.values):
            rows = stored.new_zeros(*positions.shape, stored.shape[-1])
            rows[known] = stored[positions[known]]
            found.append(rows)
        return found[0], found[1]
        ### END SOLUTION


def memory_attention(
    q: Tensor,
    local_k: Tensor,
    local_v: Tensor,
    memory_k: Tensor,
    memory_v: Tensor,
    local_mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attend to the window and to what was retrieved, under one softmax.

    The keys of the window are shared by all queries. What was retrieved
    belongs to one query each, R entries.

    Args:
        q: queries, shape (..., T, D).
        local_k: keys of the window, shape (..., S, D).
        local_v: values of the window, shape (..., S, E).
        memory_k: keys retrieved for each query, shape (..., T, R, D).
        memory_v: values retrieved for each query, shape (..., T, R, E).
        local_mask: boolean, broadcastable to (..., T, S), True = may attend.
        memory_mask: boolean, broadcastable to (..., T, R), True = there is
            an entry in this place.

    Returns:
        The output, shape (..., T, E), and the weights, shape (..., T, S + R),
        those of the window first. A query that may attend to nothing gets
        zeros.

    Source: Wu et al. 2022, section 3 (there, two softmaxes and a gate;
    Bertsch et al. 2023 attend to what was retrieved by the softmax alone).
    """
    ### BEGIN SOLUTION
    local = attention_scores(q, local_k)  # (..., T, S)
    found = attention_scores(q[..., None, :], memory_k)[..., 0, :]
    if local_mask is not None:
        local = local.masked_fill(~local_mask, -math.inf)
    if memory_mask is not None:
        found = found.masked_fill(~memory_mask, -math.inf)
    weights = softmax(torch.cat([local, found], -1))  # (..., T, S + R)
    near, far = weights.split([local.shape[-1], found.shape[-1]], -1)
    output = near @ local_v + (far[..., None, :] @ memory_v)[..., 0, :]
    return output, weights
    ### END SOLUTION


def feature_map(x: Tensor) -> Tensor:
    """Make every number positive: ELU + 1, that is x + 1 or exp(x)."""
    return F.elu(x) + 1


def infini_update(
    memory: Tensor,
    norm: Tensor,
    keys: Tensor,
    values: Tensor,
    delta: bool = False,
) -> tuple[Tensor, Tensor]:
    """Write a segment into a memory of fixed size.

    With σ the feature map, K and V the segment's keys and values, M the
    memory and z its norm:

    - linear: M + σ(K)ᵀ V;
    - delta: M + σ(K)ᵀ (V - Ṽ), where row s of Ṽ is what the old memory has
      for key s already, σ(K_s) M / (σ(K_s)·z), or zeros if that divides by 0;
    - the norm, in both: z plus the sum of σ(K_s) over s.

    What is given is left as it is.

    Args:
        memory: M, shape (B, H, D, E); at first zeros.
        norm: z, shape (B, H, D); at first zeros.
        keys: K, shape (B, H, S, D).
        values: V, shape (B, H, S, E).
        delta: whether to write only what the memory doesn't have yet.

    Returns:
        The new memory and the new norm, of the same shapes.

    Source: Munkhdalai et al. 2024, section 2.
    """
    ### BEGIN SOLUTION
    features = feature_map(keys)  # (B, H, S, D)
    if delta:
        total = features @ norm[..., None]  # (B, H, S, 1)
        known = features @ memory / total.masked_fill(total == 0, 1.0)
        values = values - known
    return memory + features.mT @ values, norm + features.sum(-2)
    ### END SOLUTION


def infini_read(
    q: Tensor,
    memory: Tensor,
    norm: Tensor,
    local_output: Tensor,
    gate: Tensor,
) -> Tensor:
    """Read the memory, and blend it with attention to the window.

    With σ the feature map and β the gate of a head, a query q gets
    g · σ(q) M / (σ(q)·z) + (1 - g) · (its local output), g = sigmoid(β).
    A memory in which nothing was written yet reads as zeros.

    Args:
        q: queries, shape (B, H, T, D).
        memory: M, shape (B, H, D, E).
        norm: z, shape (B, H, D).
        local_output: attention to the window, shape (B, H, T, E).
        gate: β, one number a head, shape (H,).

    Returns:
        The output, shape (B, H, T, E).

    Source: Munkhdalai et al. 2024, section 2.
    """
    ### BEGIN SOLUTION
    features = feature_map(q)
    total = features @ norm[..., None]  # (B, H, T, 1)
    remembered = features @ memory / total.masked_fill(total == 0, 1.0)
    share = gate.sigmoid()[:, None, None]  # (H, 1, 1)
    return share * remembered + (1 - share) * local_output
    ### END SOLUTION


def hybrid_pattern(
    n_layers: int, period: int = 8, offset: int = 4
) -> list[str]:
    """Say which layers of a hybrid model are attention and which are Mamba.

    Layers are numbered from 0. Of every ``period`` layers one is attention,
    the one at ``offset``. Jamba's, the defaults, have one in eight: 1:7. A
    last period that is cut short may have none.

    Args:
        n_layers: how many layers there are.
        period: from one attention layer to the next.
        offset: the number of the first attention layer.

    Returns:
        "attention" or "mamba" for each layer.

    Raises:
        ValueError: unless 0 ≤ offset < period.

    Source: Lieber et al. 2024, section 3; the offset is that of the published
    model's configuration.
    """
    if not 0 <= offset < period:
        raise ValueError(
            f"the offset must be from 0 to {period - 1}, not {offset}"
        )
    ### BEGIN SOLUTION
    return [
        "attention" if layer % period == offset else "mamba"
        for layer in range(n_layers)
    ]
    ### END SOLUTION
