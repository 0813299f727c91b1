"""GGUF files of tiny random models, written by hand with the gguf package, laid out as by llama.cpp."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import quantize

LEAVES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
}
NORMS = {
    "llama": {"post_attention_layernorm": "ffn_norm"},
    "gemma3": {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}
TOPS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
Written = Callable[..., Path]


def name_in_file(name: str, architecture: str) -> str:
    """model.layers.3.mlp.up_proj.weight → blk.3.ffn_up.weight."""
    stem = name.removesuffix(".weight")
    if stem in TOPS:
        return f"{TOPS[stem]}.weight"
    _, _, layer, leaf = stem.split(".", 3)
    return f"blk.{layer}.{(LEAVES | NORMS[architecture])[leaf]}.weight"


def layout_in_file(name: str, weight: Any, architecture: str, config: Any) -> Any:
    """llama.cpp lets a rotary pair's rows lie side by side in a Llama, and adds Gemma's 1 to its norms."""
    if architecture == "gemma3" and "norm" in name:
        return weight + 1
    if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        half = weight.shape[0] // heads // 2
        order = [h * 2 * half + k + side * half for h in range(heads) for k in range(half) for side in (0, 1)]
        return weight[order]
    return weight


def write_gguf(path: Path, model: Any, tokenizer: Any, kind: str, architecture: str = "llama") -> Path:
    """Write a model and a byte-level BPE as one file, matrices in one of the package's own types."""
    writer = gguf.GGUFWriter(path, architecture)
    config = model.config
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if architecture == "llama":
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(config.head_dim)
    else:
        writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)
    ids = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    special = {token.content for token in tokenizer.added_tokens_decoder.values()}
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in ids])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token, _ in ids]
    )
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        array = np.ascontiguousarray(layout_in_file(name, array, architecture, config))
        own = gguf.GGMLQuantizationType[kind if array.ndim > 1 and array.shape[-1] % 32 == 0 else "F32"]
        writer.add_tensor(name_in_file(name, architecture), quantize(array, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, tiny_tokenizer: Any) -> Written:
    """Write the tiny Llama, or a tiny Gemma 3 with sliding windows: tiny_gguf("Q8_0", "gemma3")."""
    import torch
    from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

    folder = tmp_path_factory.mktemp("gguf")

    def written(kind: str = "Q8_0", architecture: str = "llama") -> Path:
        path = folder / f"tiny-{architecture}-{kind}.gguf"
        if path.exists():
            return path
        if architecture == "llama":
            model = AutoModelForCausalLM.from_pretrained(tiny_llama)
        else:
            torch.manual_seed(0)
            config = Gemma3TextConfig(
                vocab_size=len(tiny_tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=7,
                num_attention_heads=4,
                num_key_value_heads=1,
                head_dim=8,
                query_pre_attn_scalar=8,
                sliding_window=16,
                max_position_embeddings=128,
                initializer_range=0.1,
                bos_token_id=None,
                eos_token_id=tiny_tokenizer.eos_token_id,
            )
            model = Gemma3ForCausalLM(config)
        return write_gguf(path, model, tiny_tokenizer, kind, architecture)

    return written
