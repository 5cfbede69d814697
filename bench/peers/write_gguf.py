"""Writes a GGUF file with random weights. Run by llama_cpp.py with the Python of build/peers/venv.

Usage: write_gguf.py SHAPE LAYERS QUANT FILE
"""
import functools
import pathlib
import sys

import gguf
import numpy

import shapes

POOL_BLOCKS = 1_000_003  # prime: no two rows of a tensor are the same blocks
TYPES = {"f32": gguf.GGMLQuantizationType.F32, "q8_0": gguf.GGMLQuantizationType.Q8_0,
         "q4_0": gguf.GGMLQuantizationType.Q4_0}


@functools.cache
def pool(quant: str, deviation: float) -> numpy.ndarray:
    """[POOL_BLOCKS, bytes of a block]: an f16 scale, then weights evenly spread around 0."""
    random = numpy.random.default_rng(1)
    if quant == "q8_0":
        values = random.integers(-127, 128, (POOL_BLOCKS, 32), numpy.int8).view(numpy.uint8)
        spread = 127 / 3**0.5
    else:
        nibbles = random.integers(1, 16, (POOL_BLOCKS, 32), numpy.uint8)  # 8 is zero
        values = nibbles[:, :16] | nibbles[:, 16:] << 4
        spread = 7.5 / 3**0.5
    scales = numpy.full((POOL_BLOCKS, 1), deviation / spread, numpy.float16).view(numpy.uint8)
    return numpy.concatenate([scales, values], axis=1)


def data(tensor: shapes.Tensor, seed: int) -> numpy.ndarray:
    """A norm is 1, other tensors are random: the router truly, the rest from the pool.

    Matrices keep the size of what they multiply. A token's embedding outweighs what all layers add
    to it: attention adds much the same to every token, so that with small embeddings a batch of 16
    soon chose a quarter of the experts that tokens choosing evenly hit, and the peer read no more.
    """
    deviation = 32 if tensor.name == "token_embd.weight" else tensor.shape[-1] ** -0.5
    if len(tensor.shape) == 1:
        return numpy.ones(tensor.shape, numpy.float32)
    if tensor.type == "f32":
        random = numpy.random.default_rng(seed)
        return random.standard_normal(tensor.shape, numpy.float32) * numpy.float32(deviation)
    blocks = pool(tensor.type, deviation)
    needed = tensor.bytes // blocks.shape[1]
    first = seed * 7919 % POOL_BLOCKS
    return numpy.take(blocks, numpy.arange(first, first + needed), axis=0, mode="wrap")


def write(shape: shapes.Shape, layers: int, quant: str, path: pathlib.Path):
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_name(path.stem)
    writer.add_block_count(layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.experts_per_token)
        writer.add_expert_feed_forward_length(shape.feed_forward)
    writer.add_tokenizer_model("no_vocab")  # the benches make up token ids
    writer.add_vocab_size(shape.vocabulary)
    tensors = shapes.tensors(shape, layers, quant)
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, numpy.dtype(numpy.float32), tensor.bytes,
                               TYPES[tensor.type])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for seed, tensor in enumerate(tensors):
        writer.write_tensor_data(data(tensor, seed))
    writer.close()


if __name__ == "__main__":
    name, layers, quant, path = sys.argv[1:]
    write(shapes.checked(name, int(layers)), int(layers), quant, pathlib.Path(path))
