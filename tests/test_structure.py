"""The shape of the source: imports go down only, no framework, small documented functions."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minipt"
FRAMEWORKS = {"torch", "tensorflow", "jax", "jaxlib", "flax", "autograd", "transformers", "peft"}
FRAMEWORKS |= {"keras", "mxnet", "tinygrad", "cupy", "accelerate"}
RUN_TIME = {"numpy", "tokenizers", "safetensors", "matplotlib", "tqdm", "gguf", "threadpoolctl"}
RUN_TIME |= {"minipt"}
OPTIONAL = {"huggingface_hub"}
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
SPECIAL = {"errors", "plain"}  # the one serves all, the other is read first
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
    """Methods that a base class, here or in what is imported at one or two removes, documents."""
    documented, near = set(), {module} | own_imports(module)
    for each in near.union(*map(own_imports, near)):
        for node in tree(each).body:
            if isinstance(node, ast.ClassDef) and not node.bases:
                methods = [child for child in node.body if isinstance(child, ast.FunctionDef)]
                documented |= {child.name for child in methods}
    return documented


def reading_order(package: str) -> list[str]:
    """What a package's docstring lists, one a line: indented, the name, two spaces, what it is."""
    lines = ast.get_docstring(tree(package or "__init__")).splitlines()
    return re.findall(r"^    (\w+)  +\S", "\n".join(lines), re.MULTILINE)


def members(package: str) -> set[str]:
    """A package's own modules and folders."""
    folder = PACKAGE / package.replace(".", "/")
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    return modules | {path.parent.name for path in folder.glob("*/__init__.py")}


@pytest.mark.parametrize("package", ["", *FOLDERS])
def test_a_package_lists_its_members_in_the_order_of_reading(package):
    listed = reading_order(package)
    assert len(listed) == len(set(listed))
    assert set(listed) == members(package) - SPECIAL


def later_than(module: str) -> set[str]:
    """What a module may not import: the folders above its own, and its folder's later modules."""
    folder, _, name = module.partition(".")
    floors = ["errors", *reading_order("")]
    above = set(floors[floors.index(folder) + 1 :])
    found = {each for each in SOURCES if each.split(".")[0] in above}
    if name:
        order = reading_order(folder)
        found |= {f"{folder}.{each}" for each in order[order.index(name) :]} | {folder}
    return found


@every_module
def test_imports_go_down_only(module):
    """Between folders and inside them, to what is listed before; so there is no circle."""
    if module not in ("__init__", "__main__", "plain"):
        assert own_imports(module) - {module} <= SOURCES.keys() - later_than(module)


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
    names = [node.name for node in tree("maths.ops").body if isinstance(node, ast.FunctionDef)]
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
    assert "minipt.maths.ops" in modules
    assert {name.split(".")[0] for name in modules}.isdisjoint(FRAMEWORKS | {"matplotlib"})
