"""The reader's latent attention beside DeepSeek-V2's, with the same weights.

Nothing is downloaded: all weights are random, and no norm is left at the ones
that a fresh layer has.
"""

import torch
from torch import Tensor, nn

from contextlab.twins import load, randomise


class DeepSeek:
    """DeepSeek-V2's attention, as the ``transformers`` library builds it.

    Attributes:
        layer: the ``DeepseekV2Attention``, in float64.
        sizes: what our own layer takes for the same sizes.
    """

    def __init__(
        self,
        d_model: int = 21,
        n_heads: int = 3,
        *,
        q_latent: int = 14,
        kv_latent: int = 11,
        nope: int = 7,
        rope: int = 6,
        value: int = 5,
    ) -> None:
        from transformers import DeepseekV2Config
        from transformers.models.deepseek_v2 import modeling_deepseek_v2

        config = DeepseekV2Config(
            hidden_size=d_model,
            num_attention_heads=n_heads,
            num_key_value_heads=n_heads,
            q_lora_rank=q_latent,
            kv_lora_rank=kv_latent,
            qk_nope_head_dim=nope,
            qk_rope_head_dim=rope,
            v_head_dim=value,
            attn_implementation="sdpa",
        )
        self.layer = modeling_deepseek_v2.DeepseekV2Attention(config, 0).eval()
        randomise(self.layer)
        self.rotary = modeling_deepseek_v2.DeepseekV2RotaryEmbedding(config)
        self.sizes = {
            "d_model": d_model,
            "n_heads": n_heads,
            "q_latent": q_latent,
            "kv_latent": kv_latent,
            "nope": nope,
            "rope": rope,
            "value": value,
        }

    def twin(self, latent_attention: type[nn.Module]) -> nn.Module:
        """Return the reader's layer, with the weights of this one."""
        ours = latent_attention(**self.sizes).double()
        load(ours, dict(self.layer.named_parameters()))
        return ours

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output, and all that it has put into its cache.

        Args:
            x: shape (B, T, C).

        Returns:
            The output, shape (B, T, C), and latents and RoPE keys, shape
            (B, T, kv_latent + rope).
        """
        from transformers import DynamicCache

        cache = DynamicCache()
        places = torch.arange(x.shape[1])[None]
        output, _ = self.layer(
            x,
            position_embeddings=self.rotary(x, places),
            past_key_values=cache,
        )
        kept = cache.layers[0]
        return output, torch.cat([kept.keys, kept.values], -1)[:, 0]
