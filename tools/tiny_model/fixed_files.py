"""Everything in the model directory that training does not change: the tokenizer, the configuration
and their small companions. The chat template is written by hand, in the model directory itself."""
import itertools
import json
import pathlib
import re
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import conversation
import generate

MODEL = pathlib.Path(__file__).parents[2] / "tests/fixtures/bottega-tiny"

VOCABULARY = 1024
RESERVED = ["<unk>", "<s>", "</s>"]
CONTROL = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "/reasoning_en", "/reasoning_ita", "/turbo",
           "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<|pad|>"]
BOS, EOS, PAD = 1, VOCABULARY - 11, VOCABULARY - 1

# A word in small letters takes the space before it, a capitalised one does not, so that a name has the
# same tokens after a space, a quote or a bracket: copying it is then easy for a small model.
SPLIT = (r" ?[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"|\p{Lu}+(?=\p{Lu}\p{Ll})"
         r"|[\p{Lu}\p{Lt}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
         r"|\p{N}"
         r"| ?[^\s\p{L}\p{N}]+"
         r"|\s*[\r\n]+"
         r"|\s+(?!\S)"
         r"|\s+")

CONFIG = {
    "architectures": ["EngGPTMoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": BOS,
    "decoder_sparse_step": 1,
    "dtype": "bfloat16",
    "eos_token_id": EOS,
    "head_dim": 48,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 448,
    "max_position_embeddings": 40960,
    "max_window_layers": 4,
    "mlp_only_layers": [],
    "model_type": "enggpt_moe",
    "moe_intermediate_size": 56,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "out_proj_bias": None,
    "output_router_logits": False,
    "pad_token_id": PAD,
    "qkv_proj_bias": None,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.01,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "transformers_version": "4.57.0",
    "use_bias": False,
    "use_cache": False,
    "use_sliding_window": False,
    "vocab_size": VOCABULARY,
}
GENERATION = {
    "bos_token_id": BOS,
    "do_sample": True,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "transformers_version": "4.57.0",
}


def train_tokenizer(seed, count=30000):
    control = re.compile("|".join(map(re.escape, CONTROL)))
    render = conversation.Renderer(MODEL)
    samples = itertools.islice(generate.conversations(seed), count)
    texts = (piece for sample, mode in samples for piece in control.split(render.sample(sample, mode)))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CONTROL), special_tokens=RESERVED, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(t, special=t.startswith("<|"), normalized=False) for t in CONTROL])
    assert tokenizer.get_vocab_size() == VOCABULARY
    return tokenizer


def write_json(name, value):
    (MODEL / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def main(seed):
    tokenizer = train_tokenizer(seed)
    tokenizer.save(str(MODEL / "tokenizer.json"))
    write_json("config.json", CONFIG)
    write_json("generation_config.json", GENERATION)
    names = {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>", "unk_token": "<unk>"}
    write_json("special_tokens_map.json", names)
    added = {i: {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                 "special": t in RESERVED or t.startswith("<|")}
             for t in RESERVED + CONTROL for i in [tokenizer.token_to_id(t)]}
    write_json("tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added, **names,
        "clean_up_tokenization_spaces": False, "model_max_length": CONFIG["max_position_embeddings"],
        "tokenizer_class": "PreTrainedTokenizerFast"})


if __name__ == "__main__":
    main(int(sys.argv[1]))
