"""The shape of the source: imports go down only, no framework, small documented functions."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minipt"
# In the order of reading: a module imports from the layers below it and, in its own layer, only
# what was read before it.
LAYERS = (
    ("errors", "files", "ops", "trace", "gradcheck", "optim", "fetch"),
    ("base", "streams", "layer", "model", "text", "prompt", "adapter"),
    ("readout", "wiring", "generate", "verbalizer", "responses"),
    ("families", "gguf_file", "bases", "checkpoint"),
    ("tasks", "datasets", "baseline"),
    ("evaluate", "learn", "workers", "tune"),
    ("rivals.weights", "rivals.lora", "rivals.probe", "rivals.prefix", "rivals.regularised"),
    ("rivals.residual", "rivals.wayward", "rivals.discrete", "rivals.written", "rivals"),
    ("report", "plot", "store", "xray", "doctor", "arguments"),
    ("studies", "studies.jobs", "studies.sweep", "studies.count", "studies.cost"),
    ("studies.compare",),
    ("studies.ensemble", "studies.transfer"),
    ("studies.neighbours", "studies.influence", "studies.reading"),
    ("studies.claims", "studies.evidence", "studies.commands"),
    ("cli", "__main__"),
)
ORDER = [module for layer in LAYERS for module in layer]
FRAMEWORKS = {"torch", "tensorflow", "jax", "jaxlib", "flax", "autograd", "transformers", "peft"}
FRAMEWORKS |= {"keras", "mxnet", "tinygrad", "cupy", "accelerate"}
RUN_TIME = {"numpy", "tokenizers", "safetensors", "matplotlib", "tqdm", "gguf", "minipt"}
OPTIONAL = {"huggingface_hub"}
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
LONGEST_FUNCTION = 45
every_module = pytest.mark.parametrize("module", SOURCES)


def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def imports(module: str) -> set[str]:
    """Every module that is imported, anywhere in the file, by its whole name."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(module: str) -> set[str]:
    return {name.removeprefix("minipt.") for name in imports(module)} & SOURCES.keys()


def functions(module: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef)]


def public(module: str) -> list[ast.FunctionDef | ast.ClassDef]:
    """Functions and classes whose name has no underscore, and the methods of those classes."""
    found = []
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found.append(node)
    for node in [node for node in found if isinstance(node, ast.ClassDef)]:
        found += [
            child
            for child in node.body
            if isinstance(child, ast.FunctionDef) and not child.name.startswith("_")
        ]
    return found


def overrides(module: str) -> set[str]:
    """Methods that a base class, here or in a module that is imported, has documented."""
    documented = set()
    for each in {module} | own_imports(module):
        for node in tree(each).body:
            if isinstance(node, ast.ClassDef) and not node.bases:
                methods = [child for child in node.body if isinstance(child, ast.FunctionDef)]
                documented |= {child.name for child in methods}
    return documented


def test_every_module_has_its_layer():
    assert set(SOURCES) - {"__init__"} <= set(ORDER)


@every_module
def test_imports_go_down_only(module):
    if module == "__init__":
        return
    above = ORDER[ORDER.index(module) :]
    assert own_imports(module).isdisjoint(above), f"{module} imports what is read after it"


@every_module
def test_no_framework_is_imported(module):
    assert {name.split(".")[0] for name in imports(module)}.isdisjoint(FRAMEWORKS)


@every_module
def test_only_the_standard_library_and_the_dependencies_are_imported(module):
    roots = {name.split(".")[0] for name in imports(module)}
    assert roots <= RUN_TIME | OPTIONAL | sys.stdlib_module_names


@every_module
def test_every_module_says_what_it_is(module):
    assert ast.get_docstring(tree(module))


@every_module
def test_every_public_function_and_class_has_a_docstring(module):
    silent = [node.name for node in public(module) if not ast.get_docstring(node)]
    assert set(silent) <= overrides(module)


@every_module
def test_no_function_is_too_long(module):
    """Its docstring does not count."""
    lengths = {}
    for node in functions(module):
        first = node.body[0]
        quoted = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
        lengths[node.name] = node.end_lineno - node.lineno + 1 - quoted
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


@every_module
def test_nothing_is_pickled(module):
    assert imports(module).isdisjoint({"pickle", "cloudpickle", "dill", "joblib", "shelve"})
    assert "allow_pickle" not in SOURCES[module].read_text(encoding="utf-8")


def test_every_backward_op_stands_below_its_forward():
    """linear, linear_dx, linear_dw: between an op and its backwards stands no other op."""
    names = [node.name for node in tree("ops").body if isinstance(node, ast.FunctionDef)]
    forward = ""
    for name in names:
        stem, _, ending = name.rpartition("_")
        if ending in ("dx", "dw", "db", "dscores", "dpast"):
            assert stem == forward, f"{name} stands below {forward}"
        else:
            forward = name


MEASURE = """
import sys, time
before = time.process_time()
import minipt
print(__import__("json").dumps([time.process_time() - before, sorted(sys.modules)]))
"""


def imported() -> tuple[float, set[str]]:
    """Seconds of processor time that `import minipt` takes, and what is loaded then."""
    result = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, check=True, text=True
    )
    seconds, modules = json.loads(result.stdout)
    return seconds, set(modules)


def test_minipt_is_imported_in_under_half_a_second():
    assert min(imported()[0] for _ in range(3)) < 0.5


def test_importing_minipt_loads_no_framework_and_no_plots():
    _, modules = imported()
    assert "minipt.ops" in modules
    assert {name.split(".")[0] for name in modules}.isdisjoint(FRAMEWORKS | {"matplotlib"})
