#!/usr/bin/env python3
"""Compiles HLSL compute shaders by the DirectX shader compiler, as wgpu calls it.

    dxc.py LIBDXCOMPILER [--spirv ARGUMENT..] -- FILE.hlsl..

Each FILE.hlsl becomes FILE.dxil, compiled and passed by the compiler's own validator, or with --spirv FILE.spv. The exit
status is 1 if any file is refused; the compiler's messages go to stderr.
"""

import ctypes
import os
import sys
import uuid

ARGUMENTS = ["-E", "main", "-T", "cs_6_2", "-HV", "2018", "-no-warnings", "-Ges", "-enable-16bit-types"]
UTF8 = 65001
# The interfaces' methods by their places in the table of virtual functions. On Linux a destructor takes two places
# after the three of IUnknown.
COMPILE, STATUS, RESULT, ERRORS, POINTER, SIZE = (slot + 2 for slot in (3, 3, 4, 5, 3, 4))


def guid(text):
    return (ctypes.c_ubyte * 16).from_buffer_copy(uuid.UUID(text).bytes_le)


class Buffer(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_char_p), ("size", ctypes.c_size_t), ("encoding", ctypes.c_uint)]


def call(interface, slot, *arguments, result=ctypes.c_int):
    """Calls a method of a COM interface; every argument is a pointer or an integer of its own ctypes type."""
    table = ctypes.cast(interface, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
    types = [ctypes.c_void_p, *(type(argument) for argument in arguments)]
    return ctypes.CFUNCTYPE(result, *types)(table[slot])(interface, *arguments)


def address(thing):
    return ctypes.c_void_p(ctypes.addressof(thing))


def blob(interface):
    size = call(interface, SIZE, result=ctypes.c_size_t)
    return ctypes.string_at(call(interface, POINTER, result=ctypes.c_void_p), size)


def compiler(library):
    found = ctypes.c_void_p()
    create = ctypes.CDLL(library).DxcCreateInstance
    class_id, interface_id = "73e22d93-e6ce-47f3-b5bf-f0664f39c1b0", "228b4687-5a6a-4730-900c-9702b2203f54"
    if create(guid(class_id), guid(interface_id), ctypes.byref(found)):
        sys.exit(f"{library} makes no compiler")
    return found


def compile_file(dxc, path, more):
    """The compiled bytes, or None, and what the compiler says. It always says that it cannot sign what it has compiled."""
    with open(path, "rb") as file:
        text = file.read()
    source = Buffer(text, len(text), UTF8)
    arguments = ARGUMENTS + more
    wide = (ctypes.c_wchar_p * len(arguments))(*arguments)
    outcome, status, errors, compiled = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    wanted = guid("58346cda-dde7-4497-9461-6f87af5e0659")
    failed = call(
        dxc, COMPILE, address(source), address(wide), ctypes.c_uint(len(arguments)), ctypes.c_void_p(),
        address(wanted), address(outcome),
    )
    if failed:
        return None, f"the compiler fails: {failed & 0xFFFFFFFF:#x}"
    call(outcome, STATUS, address(status))
    call(outcome, ERRORS, address(errors))
    message = blob(errors).rstrip(b"\0").decode(errors="replace") if errors.value else ""
    if status.value:
        return None, message
    call(outcome, RESULT, address(compiled))
    return blob(compiled), message


def main():
    split = sys.argv.index("--")
    library, *options = sys.argv[1:split]
    to_spirv = options[:1] == ["--spirv"]
    more = ["-spirv", "-fspv-target-env=vulkan1.1", *options[1:]] if to_spirv else []
    dxc, refused = compiler(library), 0
    for path in sys.argv[split + 1 :]:
        compiled, message = compile_file(dxc, path, more)
        if message and not (compiled and "DXIL.dll not found" in message):
            print(f"{path}: {message}", file=sys.stderr)
        if compiled is None:
            refused = 1
            continue
        with open(os.path.splitext(path)[0] + (".spv" if to_spirv else ".dxil"), "wb") as file:
            file.write(compiled)
    sys.stderr.flush()
    # Unloading the library crashes: leave without it.
    os._exit(refused)


main()
