"""The house's rules on who may include and import whom, read off the source."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
C_FILES = sorted(
    p
    for d in ("csrc", "cuda")
    for p in (ROOT / d).rglob("*.[chu]*")
    if "dev" not in p.relative_to(ROOT).parts  # the kernels' development harness is not built
)

# Folders of headers that each part of the C source may include, beside the system's.
ALLOWED = {
    "lnet": {"lnet"},
    "core": {"lnet"},
    "ops": {"lnet", "ops"},
    "cpu": {"lnet", "ops", "cpu"},
    "cuda": {"lnet", "ops", "cuda"},
    "python": {"lnet", "ops", "python", "numpy"},
}
FOREIGN = re.compile(r"^(Python|numpy/|cuda|cublas|nccl|mpi)", re.IGNORECASE)

# Lower layers first: a module imports only modules of its own layer or of lower ones.
LAYERS = [
    {"errors", "arguments", "cuda_libraries", "kept", "recording", "_core"},
    {"communicator"},
    {"parallel"},
    {
        "attention",
        "attention_plot",
        "attention_stream",
        "config",
        "schedules",
        "data",
        "tasks",
        "checkpoint",
        "random",
        "matmul",
        "blas",
    },
    {"anomaly"},
    {"autograd", "finality"},
    {"functional", "torch"},
    {"recompute"},
    {"nn"},
    {"mixers"},
    {"block", "generate"},
    {"model"},
    {"optim", "evaluate", "flops"},
    {"train"},
    {"bench"},
    {"info", "cli"},
]


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s+["<]([^">]+)[">]', path.read_text(), re.MULTILINE)


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT).parts
    return "cuda" if relative[0] == "cuda" else relative[1]


@pytest.mark.parametrize("path", C_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_c_files_include_only_what_lies_below(path):
    part = part_of(path)
    for header in includes(path):
        folder = header.split("/")[0]
        if folder in ALLOWED:
            assert folder in ALLOWED[part], f"{path.name} of {part} includes {header}"
        elif FOREIGN.match(header):
            assert part in ("python", "cuda"), f"{path.name} of {part} includes {header}"
            assert part != "cuda" or not header.startswith(("Python", "numpy"))


def test_launchers_and_kernels_neither_exit_nor_print():
    banned = re.compile(r"\b(exit|abort|printf|fprintf|puts|assert)\s*\(")
    for path in C_FILES:
        found = banned.search(re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.DOTALL))
        assert found is None, f"{path.relative_to(ROOT)} calls {found and found.group()}"


def test_every_op_has_a_cuda_kernel():
    """The table takes launchers by their names: one that is misspelt would be left out."""
    lines = re.findall(r"^LNET_(\w+)\((\w+)\)", (ROOT / "csrc/lnet/ops.def").read_text(), re.M)
    names = {name for _, name in lines} | {f"{n}_backward" for kind, n in lines if "PAIR" in kind}
    assert len(names) > 25
    source = "".join(path.read_text() for path in (ROOT / "cuda").glob("*.cu"))
    defined = set(re.findall(r"lnet_status\s+lnet_cuda_(\w+)\(", source))
    assert names - defined == set()


def python_modules() -> list[Path]:
    return sorted((ROOT / "longnet").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The parts of longnet that a file imports when it is imported."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names = [base] if base != "longnet" else [f"longnet.{a.name}" for a in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("longnet.")}
    return found


def layer(part: str) -> int | None:
    return next((i for i, parts in enumerate(LAYERS) if part in parts), None)


def test_python_imports_go_downward_only():
    for path in python_modules():
        part = path.relative_to(ROOT / "longnet").parts[0].removesuffix(".py")
        if part in ("__init__", "__main__"):
            continue
        own = layer(part)
        assert own is not None, f"longnet/{part} has no place among the layers of this test"
        for other in imported(path) - {part}:
            below = layer(other)
            if below is not None:  # else a name such as longnet.Tensor
                assert below <= own, f"{path.relative_to(ROOT)} imports longnet.{other}"


def test_mixers_do_not_know_each_other_nor_the_trainer_a_mixer():
    registry = {"__init__.py", "attention.py"}
    mixers = [p for p in (ROOT / "longnet/mixers").glob("*.py") if p.name not in registry]
    names = [p.stem for p in mixers]
    for path in mixers:
        text = path.read_text()
        for other in names:
            assert other == path.stem or f"mixers.{other}" not in text
    for path in (ROOT / "longnet/train").rglob("*.py"):
        for name in names:
            assert not re.search(rf"[\"'.]{name}[\"'.]", path.read_text()), f"{path} names {name}"


def test_communicators_know_nothing_of_what_they_carry():
    for path in (ROOT / "longnet/communicator").glob("*.py"):
        assert imported(path) <= {"communicator", "_core", "errors", "cuda_libraries"}, path.name


def test_references_do_not_call_the_extension():
    for path in (ROOT / "tests/reference").glob("*.py"):
        assert not imported(path), f"{path.name} imports longnet"
        assert "import longnet" not in path.read_text()
