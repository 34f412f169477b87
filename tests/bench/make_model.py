#!/usr/bin/env python3
"""make_model.py DIR --gib N [--hidden H --width W]: a Llama checkpoint of random BF16 weights.

For timing and memory only: the weights are noise, drawn once per 16 MiB and used again at odd places. Shards of 5 GB, no
tokenizer. Needs nothing but the standard library and writes as fast as the disk takes it.
"""
import argparse
import json
import os
import random

SHARD_BYTES = 5_000_000_000
BLOCK = 16 << 20


def layer_tensors(layer, hidden, width, kv):
    p = f"model.layers.{layer}."
    return [
        (p + "input_layernorm.weight", [hidden]),
        (p + "self_attn.q_proj.weight", [hidden, hidden]),
        (p + "self_attn.k_proj.weight", [kv, hidden]),
        (p + "self_attn.v_proj.weight", [kv, hidden]),
        (p + "self_attn.o_proj.weight", [hidden, hidden]),
        (p + "post_attention_layernorm.weight", [hidden]),
        (p + "mlp.gate_proj.weight", [width, hidden]),
        (p + "mlp.up_proj.weight", [width, hidden]),
        (p + "mlp.down_proj.weight", [hidden, width]),
    ]


def bytes_of(shape):
    n = 2
    for d in shape:
        n *= d
    return n


def noise():
    """Small finite BF16 numbers of both signs."""
    rng = random.Random(1)
    high = bytes((b & 0x80) | 0x3B | (b & 0x04) for b in range(256))
    block = bytearray(BLOCK)
    block[0::2] = rng.randbytes(BLOCK // 2)
    block[1::2] = rng.randbytes(BLOCK // 2).translate(high)
    return memoryview(bytes(block))


def write_shard(path, tensors, block):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors:
        end = at + bytes_of(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb", buffering=0) as f:
        f.write(len(text).to_bytes(8, "little") + text)
        left, turn = at, 0
        while left > 0:
            start = turn * 7919 * 2 % (BLOCK // 2)
            n = min(left, BLOCK - start)
            f.write(block[start : start + n])
            left -= n
            turn += 1


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("dir")
    p.add_argument("--gib", type=float, required=True)
    p.add_argument("--hidden", type=int, default=4096)
    p.add_argument("--width", type=int, default=14336)
    p.add_argument("--vocab", type=int, default=32000)
    a = p.parse_args()
    kv = a.hidden // 4
    per_layer = sum(bytes_of(s) for _, s in layer_tensors(0, a.hidden, a.width, kv))
    ends = 2 * a.vocab * a.hidden * 2
    layers = max(1, round((a.gib * 2**30 - ends) / per_layer))
    tensors = [("model.embed_tokens.weight", [a.vocab, a.hidden])]
    for layer in range(layers):
        tensors += layer_tensors(layer, a.hidden, a.width, kv)
    tensors += [("model.norm.weight", [a.hidden]), ("lm_head.weight", [a.vocab, a.hidden])]

    shards, filled = [[]], 0
    for name, shape in tensors:
        n = bytes_of(shape)
        if filled and filled + n > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += n
    os.makedirs(a.dir, exist_ok=True)
    block, index = noise(), {}
    for i, shard in enumerate(shards):
        name = "model.safetensors"
        if len(shards) > 1:
            name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        write_shard(os.path.join(a.dir, name), shard, block)
        index.update({t: name for t, _ in shard})
    if len(shards) > 1:
        with open(os.path.join(a.dir, "model.safetensors.index.json"), "w", encoding="utf-8") as f:
            json.dump({"metadata": {}, "weight_map": index}, f)
    with open(os.path.join(a.dir, "config.json"), "w", encoding="utf-8") as f:
        json.dump(
            {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "hidden_size": a.hidden,
                "intermediate_size": a.width,
                "num_hidden_layers": layers,
                "num_attention_heads": a.hidden // 128,
                "num_key_value_heads": kv // 128,
                "head_dim": 128,
                "vocab_size": a.vocab,
                "max_position_embeddings": 4096,
                "rms_norm_eps": 1e-5,
                "rope_theta": 10000.0,
                "hidden_act": "silu",
                "tie_word_embeddings": False,
                "torch_dtype": "bfloat16",
            },
            f,
            indent=1,
        )
    print(f"{a.dir}: {layers} layers, {sum(bytes_of(s) for _, s in tensors) / 2**30:.2f} GiB")


main()
