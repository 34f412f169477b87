"""Writes tests/fuzz/seeds: where fuzzing begins, beside tests/data. Hostile files, one per known case.

usage: python scripts/refs/make_fuzz_seeds.py [OUT [MODEL...]]     (needs nothing; run it in the root)

safetensors: the cases of the reference library's own tests. gguf: what readers of GGUF fell for.
config: config.json and tensor names of tests/golden and of each MODEL directory, so that every
family is reached. The nat-* ones are gpt2, gemma2 and bert of tests/golden as `moetool convert
--experts 4 --active 2 --shared 1 --arch native` writes them, and a model of unknown family (--ffn).
"""

import glob
import json
import os
import struct
import sys

OUT = sys.argv[1] if len(sys.argv) > 1 else "tests/fuzz/seeds"


def put(target, name, data):
    os.makedirs(os.path.join(OUT, target), exist_ok=True)
    with open(os.path.join(OUT, target, name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


# ---- safetensors ----

def st(header, data=b"", claimed=None):
    text = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + data


def st_entry(dtype="I32", shape="2,2", begin=0, end=16):
    return f'{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{begin},{end}]}}'


def safetensors():
    one = '{"test":' + st_entry() + "}"
    cases = {
        "header_too_small": b"",
        "header_too_large": struct.pack("<Q", 2**64 - 1) + b"{}",
        "invalid_header_length": st("", claimed=60),
        "lying_length": st(one, b"\0" * 16, claimed=100000000),
        "invalid_header_non_utf8": st(b"\xff"),
        "invalid_header_not_json": st("{"),
        "json_attack": st("{" + ",".join(f'"t{i}":' + st_entry() for i in range(10)) + "}",
                          b"\0" * 16),
        "metadata_incomplete_buffer": st(one, b"\0" * 14),
        "polyglot_tail": st(one, b"\0" * 16 + b"extra_bogus_data_for_polyglot_file"),
        "invalid_info": st('{"test":' + st_entry(shape="2,3") + "}", b"\0" * 16),
        "validation_overflow_dims": st('{"test":' + st_entry(shape="2,18446744073709551614") + "}",
                                       b"\0" * 16),
        "validation_overflow_bytes": st('{"test":' + st_entry(shape="2,9223372036854775807") + "}",
                                        b"\0" * 16),
        "fp4_misaligned": st('{"test":' + st_entry("F4", "3", 0, 2) + "}", b"\0" * 2),
        "fp4_invalid": st('{"test":' + st_entry("F4", "4", 0, 3) + "}", b"\0" * 3),
        "hole": st('{"a":' + st_entry(shape="1", end=4) + ',"b":' + st_entry(shape="1", begin=8,
                                                                              end=12) + "}",
                   b"\0" * 12),
        "reversed": st('{"a":' + st_entry(shape="1", begin=4, end=0) + "}", b"\0" * 4),
        "duplicate": st('{"a":' + st_entry(shape="1", end=4) + ',"a":' + st_entry(
            shape="1", begin=4, end=8) + "}", b"\0" * 8),
        "aliased": st("{" + ",".join(f'"{i}":' + st_entry("U8", "0", 0, 0) for i in range(200))
                      + "}"),
        "nul_padding": st(one + "\0\0\0", b"\0" * 16),
        "ok_one": st(one, b"\0" * 16),
        "ok_empty": st("{}"),
        "ok_zero_sized": st('{"test":' + st_entry(shape="2,0", end=0) + "}"),
        "ok_rank_0": st('{"test":' + st_entry(shape="", end=4) + "}", b"\0" * 4),
        "ok_white_space": st(" \t\n" + one + "   ", b"\0" * 16),
        "ok_metadata": st('{"__metadata__":{"format":"pt","a":"\\u00e9\\n"},"x":' + st_entry(
            "F4", "2", 0, 1) + "}", b"\0"),
    }
    for name, data in cases.items():
        put("safetensors", name, data)


# ---- gguf ----

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)


def gstr(s, claimed=None):
    b = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(b) if claimed is None else claimed) + b


def gkv(key, kind, value):
    return gstr(key) + struct.pack("<i", kind) + value


def gtensor(name="t", dims=(32,), kind=0, offset=0, n_dims=None):
    return (gstr(name) + struct.pack("<I", len(dims) if n_dims is None else n_dims) +
            b"".join(struct.pack("<q", d) if d < 2**63 else struct.pack("<Q", d) for d in dims) +
            struct.pack("<i", kind) + struct.pack("<Q", offset))


def gguf_file(kvs=(), tensors=(), data=b"", version=3, n_tensors=None, n_kv=None, align=32,
              magic=b"GGUF"):
    head = magic + struct.pack("<I", version)
    head += struct.pack("<q", len(tensors) if n_tensors is None else n_tensors)
    head += struct.pack("<q", len(kvs) if n_kv is None else n_kv)
    head += b"".join(kvs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % align) + data


def array(kind, n, items):
    return struct.pack("<iQ", kind, n) + items


def gguf():
    arch = gkv("general.architecture", STR, gstr("llama"))
    align = lambda kind, value: gkv("general.alignment", kind, value)
    tokens = gkv("tokenizer.ggml.tokens", ARR, array(STR, 2, gstr("a") + gstr("b")))
    zero = b"\0" * 128
    cases = {
        "ok": gguf_file([arch], [gtensor()], zero),
        "ok_types": gguf_file([gkv("a", U8, b"\1"), gkv("b", I64, b"\xff" * 8),
                               gkv("c", F64, struct.pack("<d", 0.1)), gkv("d", BOOL, b"\1"),
                               gkv("e", ARR, array(F32, 2, struct.pack("<ff", 1, 2)))]),
        "ok_blocks": gguf_file([arch], [gtensor(dims=(32, 2), kind=8)], b"\0" * 96),
        "magic": gguf_file(magic=b"GGUX"),
        "version_1": gguf_file(version=1),
        "big_endian": gguf_file(version=3 << 24),
        "negative_tensors": gguf_file(n_tensors=-1),
        "many_tensors": gguf_file(n_tensors=2**62),
        "many_keys": gguf_file(n_kv=2**62),
        "n_dims_5": gguf_file([], [gtensor(dims=(1,) * 5)], zero),
        "n_dims_huge": gguf_file([], [gtensor(n_dims=2**32 - 1)], zero),
        "unchecked_type": gguf_file([], [gtensor(kind=4242)], zero),
        "negative_type": gguf_file([], [gtensor(kind=-1)], zero),
        "wrapping_stride": gguf_file([], [gtensor(dims=(2**42 + 1, 2**21, 2))], zero),
        "negative_dim": gguf_file([], [gtensor(dims=(2**64 - 1,))], zero),
        "larger_than_data": gguf_file([], [gtensor(dims=(2**20,))], zero),
        "padded_sum": gguf_file([], [gtensor("a", (2**61,)), gtensor("b", (2**61,), 0, 2**63)],
                                zero),
        "not_padded": gguf_file([], [gtensor("a", (1,)), gtensor("b", (1,), 0, 4)], zero),
        "offset_outside": gguf_file([], [gtensor(offset=2**63)], zero),
        "ragged_block": gguf_file([], [gtensor(dims=(33,), kind=8)], zero),
        "string_too_long": gguf_file([gstr("a", 2**62)], n_kv=1),
        "string_value": gguf_file([gkv("a", STR, gstr("x", 2**40))]),
        "array_too_long": gguf_file([gkv("a", ARR, array(F64, 2**61, b""))]),
        "array_of_strings": gguf_file([gkv("a", ARR, array(STR, 2**60, b""))]),
        "nested_array": gguf_file([gkv("a", ARR, array(ARR, 1, array(U8, 1, b"\0")))]),
        "alignment_0": gguf_file([align(U32, struct.pack("<I", 0))], [gtensor()], zero),
        "alignment_3": gguf_file([align(U32, struct.pack("<I", 3))], [gtensor()], zero),
        "alignment_huge": gguf_file([align(U32, struct.pack("<I", 2**31))], [gtensor()], zero),
        "alignment_u64": gguf_file([align(U64, struct.pack("<Q", 2**40))], [gtensor()], zero),
        "alignment_text": gguf_file([align(STR, gstr("32"))], [gtensor()], zero),
        "scores_narrow": gguf_file([arch, gkv("tokenizer.ggml.model", STR, gstr("llama")), tokens,
                                    gkv("tokenizer.ggml.scores", ARR, array(U8, 2, b"\0\0")),
                                    gkv("tokenizer.ggml.token_type", ARR, array(U8, 2, b"\0\0"))]),
        "scores_few": gguf_file([arch, gkv("tokenizer.ggml.model", STR, gstr("llama")), tokens,
                                 gkv("tokenizer.ggml.scores", ARR, array(F32, 1, b"\0" * 4))]),
        "duplicate_key": gguf_file([arch, arch]),
        "empty_key": gguf_file([gkv("", U8, b"\0")]),
        "duplicate_tensor": gguf_file([], [gtensor(), gtensor(offset=128)], zero * 2),
        "long_name": gguf_file([], [gtensor("n" * 64)], zero),
        "unknown_value": gguf_file([gkv("a", 13, b"\0")]),
    }
    for name, data in cases.items():
        put("gguf", name, data)


# ---- json ----

def jsons():
    cases = {
        "types": '{"a":[1,-2.5e3,0,"x",true,false,null,{}],"b":{"c":[]}, "d":1.0, "e":1}',
        "escapes": '["\\u00e9\\ud83d\\ude00\\n\\t\\"\\\\\\/\\b\\f\\r", "\\u0041"]',
        "half_pair": '["\\ud83d"]', "nul": '["a\\u0000b"]', "duplicate": '{"a":1,"a":2}',
        "deep": "[" * 64 + "]" * 64, "too_deep": "[" * 65 + "]" * 65,
        "numbers": "[9007199254740992,9007199254740993,-0,1e400,1E-7,0.1,123456789012345678901]",
        "nonfinite": "[NaN,Infinity,-Infinity]", "utf8": '["\u00e9\u65e5\U0001f600"]',
        "bad_utf8": b'["\xff"]', "trailing": "{} x", "open": '{"a":', "comma": "[1,]",
        "control": '["\t"]', "empty": "", "many": "[" + ",".join("[]" * 1 for _ in range(300)) + "]",
    }
    for name, data in cases.items():
        put("json", name, data)


# ---- config ----

def configs():
    golden = sorted(glob.glob("tests/golden/*/config.json"))
    for path in golden + [os.path.join(m, "config.json") for m in sys.argv[2:]]:
        name = os.path.basename(os.path.dirname(path))
        with open(path, "rb") as f:
            data = json.dumps(json.loads(f.read()), separators=(",", ":")).encode()
        lines = []
        try:
            with open(os.path.join(os.path.dirname(path), "model.safetensors"), "rb") as f:
                n = struct.unpack("<Q", f.read(8))[0]
                header = json.loads(f.read(n))
        except OSError:
            continue
        for key, t in header.items():
            if key != "__metadata__":
                lines.append(f"{t['dtype']} {key} {','.join(map(str, t['shape']))}")
        put("config", name, data + b"\0" + "\n".join(lines).encode())


# ---- torch ----

def zip_file(members, comment=b""):
    out, central = b"", b""
    for name, data, how in members:
        n = how.get("claims", len(data))
        flags, method = how.get("flags", 0), how.get("method", 0)
        at = how.get("at", len(out))
        b = name.encode()
        out += struct.pack("<IHHHHHIIIHH", 0x04034b50, 20, flags, method, 0, 0, 0, n, n, len(b), 0)
        out += b + data
        central += struct.pack("<IHHHHHHIIIHHHHHII", 0x02014b50, 20, 20, flags, method, 0, 0, 0, n,
                               n, len(b), 0, 0, 0, 0, 0, at) + b
    end = struct.pack("<IHHHHIIH", 0x06054b50, 0, 0, len(members), len(members), len(central),
                      len(out), len(comment))
    return out + central + end + comment


def torch():
    text = lambda s: b"X" + struct.pack("<I", len(s)) + s.encode()
    storage = (b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") +
               b"K\x18tQ")
    tensor = lambda args: (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + args +
                           b"\x89ccollections\nOrderedDict\n)RtR")
    plain = tensor(b"K\0K\3K\4\x86K\4K\1\x86")
    one = b"\x80\2}" + text("w") + plain + b"s."
    pickles = {
        "dict": one,
        "bare": b"\x80\2" + plain + b".",
        "nested": b"\x80\2}(" + text("epoch") + b"K\3" + text("model") + b"}" + text("module.w") +
                  plain + b"su.",
        "outside": b"}" + text("w") + tensor(b"K\0K\xff\x85K\1\x85") + b"s.",
        "overflow": b"}" + text("w") + tensor(b"K\0\x8a\x08" + b"\xff" * 7 + b"\x7f\x85\x8a\x08" +
                                              b"\xff" * 7 + b"\x7f\x85") + b"s.",
        "negative": b"}" + text("w") + tensor(b"J\xff\xff\xff\xffK\3\x85K\1\x85") + b"s.",
        "circle": b"]q\0h\0a.",
        "explosion": b"]q\0" + b"".join(b"0](" + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1])
                                        for i in range(30)) + b".",
        "system": b"cposix\nsystem\n(" + text("true") + b"tR.",
        "stack_global": b"\x80\4\x8c\2os\x94\x8c\6system\x94\x93\x94.",
        "memo": b"Nr\xff\xff\xff\xff.",
        "long_text": b"X\xff\xff\xff\xffabc.",
        "scalars": b"\x80\4\x95\x10\0\0\0\0\0\0\0}(\x8c\1aG?\xb9\x99\x99\x99\x99\x99\x9a"
                   b"\x8c\1bN\x8c\1c\x88\x8c\1d\x8a\x09" + b"\xff" * 9 + b"\x8c\1eC\2xyu.",
    }
    members = [["a/data.pkl", one, {}], ["a/byteorder", b"little", {}],
               ["a/data/0", bytes(96), {}], ["a/version", b"3\n", {}]]

    def changed(i, **how):
        m = [list(x) for x in members]
        m[i][2] = how
        return m
    zips = {
        "plain": zip_file(members), "comment": zip_file(members, b"PK\5\6" + b"x" * 30),
        "twice": zip_file(members + [members[2]]),
        "overlap": zip_file(changed(3, at=0)), "claims": zip_file(changed(2, claims=97)),
        "claims_all": zip_file(changed(2, claims=2**32 - 1)),
        "deflated": zip_file(changed(2, method=8)), "encrypted": zip_file(changed(2, flags=1)),
        "up": zip_file(members + [["../x", b"", {}]]), "cut": zip_file(members)[:-9],
        "big": zip_file([members[0], ["a/byteorder", b"big", {}]] + members[2:]),
        "no_storage": zip_file(members[:2]),
    }
    for name, data in pickles.items():
        put("torch", name + ".pkl", data)
        put("torch", name + ".pt", zip_file([["a/data.pkl", data, {}], members[2]]))
    for name, data in zips.items():
        put("torch", "zip_" + name, data)


safetensors()
gguf()
jsons()
configs()
torch()
