"""Writes tests/fixtures/random-*: checkpoints of odd shapes with seeded random weights.

The scales are chosen so that logits are a few units, attention is neither flat nor one-hot, and
the router prefers every expert somewhere: a graph that is wrong anywhere gives wrong logits.
"""
import json
import pathlib

import numpy
import safetensors.torch
import torch

FIXTURES = pathlib.Path("tests/fixtures")

# The form that transformers 5 writes: dtype, num_local_experts, rope_parameters.
QWEN3MOE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": None,
    "decoder_sparse_step": 1,
    "dtype": "bfloat16",
    "eos_token_id": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 40,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 16,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "num_local_experts": 128,
    "output_router_logits": False,
    "pad_token_id": None,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "transformers_version": "5.23.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 131,
}

# The form that transformers 4 writes: torch_dtype, num_experts, rope_theta with rope_scaling.
YARN = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "decoder_sparse_step": 1,
    "eos_token_id": [2, 3],
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 56,
    "initializer_range": 0.02,
    "intermediate_size": 104,
    "max_position_embeddings": 256,
    "max_window_layers": 3,
    "mlp_only_layers": [1],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 24,
    "norm_topk_prob": False,
    "num_attention_heads": 10,
    "num_experts": 20,
    "num_experts_per_tok": 3,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "output_router_logits": False,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "rope_type": "yarn",
    },
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "transformers_version": "4.57.6",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 149,
}


def shapes_of(config):
    """Tensor name -> (shape, mean, standard deviation), in the order in which they are drawn."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    experts = config.get("num_local_experts", config.get("num_experts"))
    tied = config["tie_word_embeddings"]

    def linear(out, into, gain=1.0):
        return (out, into), 0.0, gain / into**0.5

    def glu(prefix, width, gain):
        yield f"{prefix}.gate_proj.weight", linear(width, hidden, 1.5)
        yield f"{prefix}.up_proj.weight", linear(width, hidden, 1.5)
        yield f"{prefix}.down_proj.weight", linear(hidden, width, gain)

    yield "model.embed_tokens.weight", ((vocab, hidden), 0.0, 0.25 if tied else 1.0)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", ((hidden,), 1.0, 0.15)
        yield f"{prefix}.self_attn.q_proj.weight", linear(q, hidden)
        yield f"{prefix}.self_attn.k_proj.weight", linear(kv, hidden)
        yield f"{prefix}.self_attn.v_proj.weight", linear(kv, hidden)
        yield f"{prefix}.self_attn.o_proj.weight", linear(hidden, q)
        yield f"{prefix}.self_attn.q_norm.weight", ((config["head_dim"],), 1.0, 0.2)
        yield f"{prefix}.self_attn.k_norm.weight", ((config["head_dim"],), 1.0, 0.2)
        yield f"{prefix}.post_attention_layernorm.weight", ((hidden,), 1.0, 0.15)
        if layer in config["mlp_only_layers"]:
            yield from glu(f"{prefix}.mlp", config["intermediate_size"], 0.5)
            continue
        yield f"{prefix}.mlp.gate.weight", linear(experts, hidden, 1.3)
        for expert in range(experts):
            yield from glu(f"{prefix}.mlp.experts.{expert}", config["moe_intermediate_size"], 2.0)
    yield "model.norm.weight", ((hidden,), 1.0, 0.15)
    if not tied:
        yield "lm_head.weight", linear(vocab, hidden, 1.8)


def write(name, config, dtype, shards, seed):
    random = numpy.random.Generator(numpy.random.PCG64(seed))
    tensors = {}
    for tensor, (shape, mean, deviation) in shapes_of(config):
        values = mean + deviation * random.standard_normal(shape)
        # Values that bf16 holds, whatever they are stored as: a comparison of bf16 serving with this
        # model then measures its arithmetic, not the rounding of weights.
        tensors[tensor] = torch.from_numpy(values).to(torch.bfloat16).to(dtype)
    directory = FIXTURES / name
    directory.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        weight_map |= {tensor: file for tensor in part}
        contents = {tensor: tensors[tensor] for tensor in part}
        safetensors.torch.save_file(contents, directory / file, metadata={"format": "pt"})
        (directory / file).chmod(0o644)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=0) + "\n")
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{directory}: {len(tensors)} tensors, {total} bytes")


write("random-qwen3moe", QWEN3MOE, torch.bfloat16, shards=3, seed=20261121)
write("random-yarn", YARN, torch.float32, shards=2, seed=20261122)
