"""A model directory as transformers' qwen3_moe in float32: the oracle of every number here."""
import json
import pathlib

import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def load(directory):
    """Returns (model, config.json as a dictionary).

    The class is named and the config is made by hand: for a model_type that transformers does not
    know, from_pretrained warns and leaves every expert at random values.
    """
    config = json.loads(pathlib.Path(directory, "config.json").read_text())
    fields = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "auto_map")}
    model, info = Qwen3MoeForCausalLM.from_pretrained(
        directory,
        config=Qwen3MoeConfig(**fields),
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    wrong = {k: v for k, v in info.items() if v and k != "error_msgs"}
    if wrong or info.get("error_msgs"):
        raise SystemExit(f"{directory}: {info}")
    assert model.config._attn_implementation == "eager"
    assert model.config._experts_implementation == "eager"
    return model.eval(), config


def moe_layers(model):
    """Index -> router of each layer that has experts."""
    return {
        index: layer.mlp.gate
        for index, layer in enumerate(model.model.layers)
        if hasattr(layer.mlp, "gate")
    }
