"""The C module, its stub and its header say the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from syspuffs.native import frame_replies, frame_requests, table
from syspuffs.native._codec import ffi, lib
from syspuffs.native.constants import MAXMSGLEN_MAX

from . import reference_frames

NATIVE = Path(__file__).resolve().parents[2] / "native"


def stub_class(name: str) -> ast.ClassDef:
    tree = ast.parse((NATIVE / "_codec.pyi").read_text())
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    return found


def stub_names(name: str) -> set[str]:
    names = set()
    for node in stub_class(name).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            assert isinstance(node.target, ast.Name)
            names.add(node.target.id)
    return names


def test_stub_has_what_the_library_has() -> None:
    assert stub_names("_Lib") == set(dir(lib))
    assert stub_names("_Ffi") <= set(dir(ffi))


def test_stub_has_the_values() -> None:
    for node in stub_class("_Lib").body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            assert isinstance(node.target, ast.Name)
            assert getattr(lib, node.target.id) == ast.literal_eval(node.value)


def test_stub_functions_take_what_c_takes() -> None:
    header = re.sub(r"/\*.*?\*/", "", (NATIVE / "codec.h").read_text(), flags=re.DOTALL)
    prototypes = dict(re.findall(r"int64_t (\w+)\(([^)]*)\)", header))
    for node in stub_class("_Lib").body:
        if isinstance(node, ast.FunctionDef):
            parameters = [re.findall(r"\w+", p)[-1] for p in prototypes.pop(node.name).split(",")]
            assert [arg.arg for arg in node.args.posonlyargs] == ["self", *parameters]
    assert not prototypes


def test_declarations_for_cffi_are_those_of_the_header() -> None:
    def words(name: str) -> list[str]:
        text = re.sub(r"/\*.*?\*/", "", (NATIVE / name).read_text(), flags=re.DOTALL)
        return re.findall(r"int64_t \w+\([^)]*\)", re.sub(r"\s+", " ", text))

    assert words("codec.h") == words("_codec.cdef.txt")


def test_every_code_has_a_reason() -> None:
    assert set(table.REASONS) == {getattr(lib, n) for n in dir(lib) if n.startswith("CODEC_")}


def test_limits_agree() -> None:
    assert lib.FRAME_MAX == MAXMSGLEN_MAX
    assert lib.FRAME_VNOVAL == -(2**63) == table.VNOVAL


def test_operations_agree() -> None:
    requests = {c << 6 | op for c, op in reference_frames.REQUESTS}
    assert set(frame_requests.PACK) == set(frame_requests.BUILD) == requests
    replies = {c << 6 | op for c, op in reference_frames.REPLIES}
    assert set(frame_replies.PACK) == set(frame_replies.BUILD) == replies
