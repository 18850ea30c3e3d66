"""What the makers of some models have published about their windows.

Numbers that nobody has published are missing here, and stay so.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """What decides the bytes and the operations of a model's window.

    Attributes:
        layers: how many layers it has.
        heads: query heads of a layer of attention.
        kv_heads: heads of it that have keys and values of their own.
        width: of a head's keys, without those of ``rope``, and of its values.
        local: a round of layers: how many have a window, how many see
            everything, and the window.
        latent: the width of MLA's latent; 0 without MLA.
        rope: the width of MLA's RoPE key; 0 without MLA.
        attention: of which layers are attention and which are not: one in
            every so many, from which layer on; (1, 0) if all are.
        inner: channels of a state space layer, each with ``state`` numbers
            and the last ``conv`` inputs.
    """

    layers: int
    heads: int = 0
    kv_heads: int = 0
    width: int = 0
    local: tuple[int, int, int] = (0, 1, 0)
    latent: int = 0
    rope: int = 0
    attention: tuple[int, int] = (1, 0)
    inner: int = 0
    state: int = 0
    conv: int = 0


@dataclass(frozen=True)
class Model:
    """A model, its window, and where each number comes from.

    Attributes:
        year: when it was published, with the month as a fraction.
        window: the tokens that its makers say it reads; None if they give no
            limit.
        mechanism: how attention is made, and how positions are told.
        cite: the key in the bibliography of what its makers wrote.
        source: who published the numbers of ``window`` and ``sizes``, where.
        sizes: None where they are not published.
        note: what the numbers don't say.
    """

    year: float
    window: int | None
    mechanism: str
    cite: str
    source: str
    sizes: Sizes | None = None
    note: str = ""


def month(year: int, number: int) -> float:
    """Return the middle of a month, in years."""
    return round(year + (number - 0.5) / 12, 3)


LLAMA_SKUS = "models/sku_list.py of github.com/meta-llama/llama-models"
GEMMA = "gemma/gm/nn/_gemma.py of github.com/google-deepmind/gemma"
SECRET = "not published"

MODELS = {
    "GPT-2 1.5B": Model(
        month(2019, 2),
        1_024,
        "multi-head attention, learned positions",
        "radford2019language",
        "config.json of huggingface.co/openai-community/gpt2-xl",
        Sizes(48, 25, 25, 64),
    ),
    "GPT-3 175B": Model(
        month(2020, 5),
        2_048,
        "multi-head attention, dense and locally banded sparse layers in turn",
        "brown2020language",
        "table 2.1 and section 2.1 of the paper",
        Sizes(96, 96, 96, 128),
        "The width of the bands is not published: counted as if all layers "
        "were dense, an upper bound.",
    ),
    "GPT-4": Model(
        month(2023, 3),
        32_768,
        SECRET,
        "openai2023gpt4",
        "OpenAI's announcement: 8,192 tokens, and 32,768 in a variant",
    ),
    "Llama 2 7B": Model(
        month(2023, 7),
        4_096,
        "multi-head attention, RoPE",
        "touvron2023llama2",
        "config.json of huggingface.co/meta-llama/Llama-2-7b-hf",
        Sizes(32, 32, 32, 128),
    ),
    "Llama 2 70B": Model(
        month(2023, 7),
        4_096,
        "grouped-query attention, RoPE",
        "touvron2023llama2",
        LLAMA_SKUS,
        Sizes(80, 64, 8, 128),
    ),
    "Mistral 7B v0.1": Model(
        month(2023, 10),
        8_192,
        "grouped-query attention, a window of 4,096 in every layer, RoPE",
        "jiang2023mistral",
        "config.json of huggingface.co/mistralai/Mistral-7B-v0.1; the window "
        "is the paper's",
        Sizes(32, 32, 8, 128, local=(1, 0, 4_096)),
    ),
    "GPT-4 Turbo": Model(
        month(2023, 11),
        128_000,
        SECRET,
        "openai2023devday",
        "OpenAI's announcement",
    ),
    "Mamba 2.8B": Model(
        month(2023, 12),
        None,
        "state space layers, no attention",
        "gu2023mamba",
        "config.json of huggingface.co/state-spaces/mamba-2.8b-hf",
        Sizes(64, attention=(65, 64), inner=5_120, state=16, conv=4),
        "Trained on texts of 2,048 tokens; nothing in it ends there.",
    ),
    "Gemini 1.5 Pro": Model(
        month(2024, 2),
        2_097_152,
        "a mixture-of-experts Transformer; its attention is not published",
        "gemini2024gemini15",
        "input limit of gemini-1.5-pro in Google's list of models; "
        "1 million tokens when it came out",
    ),
    "Jamba v0.1": Model(
        month(2024, 3),
        262_144,
        "Mamba layers, grouped-query attention in one of eight, no positions",
        "lieber2024jamba",
        "config.json of huggingface.co/ai21labs/Jamba-v0.1",
        Sizes(
            32,
            32,
            8,
            128,
            attention=(8, 4),
            inner=8_192,
            state=16,
            conv=4,
        ),
    ),
    "Llama 3 8B": Model(
        month(2024, 4),
        8_192,
        "grouped-query attention, RoPE",
        "grattafiori2024llama",
        "config.json of huggingface.co/meta-llama/Meta-Llama-3-8B",
        Sizes(32, 32, 8, 128),
    ),
    "DeepSeek-V2": Model(
        month(2024, 5),
        131_072,
        "multi-head latent attention, RoPE stretched by YaRN",
        "deepseek2024v2",
        "config.json of huggingface.co/deepseek-ai/DeepSeek-V2-Chat-0628; the "
        "window is the paper's 128K",
        Sizes(60, 128, 128, 128, latent=512, rope=64),
    ),
    "Gemma 2 27B": Model(
        month(2024, 6),
        8_192,
        "grouped-query attention, a window of 4,096 in every other layer, "
        "RoPE",
        "gemma2024gemma2",
        f"{GEMMA}; config.json of huggingface.co/google/gemma-2-27b",
        Sizes(46, 32, 16, 128, local=(1, 1, 4_096)),
    ),
    "Llama 3.1 8B": Model(
        month(2024, 7),
        131_072,
        "grouped-query attention, RoPE with stretched frequencies",
        "grattafiori2024llama",
        "config.json of huggingface.co/meta-llama/Llama-3.1-8B",
        Sizes(32, 32, 8, 128),
    ),
    "Llama 3.1 405B": Model(
        month(2024, 7),
        131_072,
        "grouped-query attention, RoPE with stretched frequencies",
        "grattafiori2024llama",
        f"{LLAMA_SKUS}; the window is the paper's 128K",
        Sizes(126, 128, 8, 128),
    ),
    "DeepSeek-V3": Model(
        month(2024, 12),
        131_072,
        "multi-head latent attention, RoPE stretched by YaRN",
        "deepseek2024v3",
        "config.json of huggingface.co/deepseek-ai/DeepSeek-V3; the window is "
        "the paper's 128K",
        Sizes(61, 128, 128, 128, latent=512, rope=64),
    ),
    "Gemma 3 27B": Model(
        month(2025, 3),
        131_072,
        "grouped-query attention, a window of 1,024 in five of six layers, "
        "RoPE",
        "gemma2025gemma3",
        f"{GEMMA}; the window is the report's 128K",
        Sizes(62, 32, 16, 128, local=(5, 1, 1_024)),
    ),
    "Gemini 3 Pro": Model(
        month(2025, 11),
        1_048_576,
        SECRET,
        "google2025gemini3",
        "input limit of gemini-3-pro-preview in Google's documentation",
    ),
}
