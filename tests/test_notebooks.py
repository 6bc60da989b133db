"""Every notebook runs from top to bottom, finds what it claims, and is stored clean and small.

`python tests/test_notebooks.py` executes them and stores what they print and draw, with the real
bases and messages in the cache. The tests run with an empty cache, where others stand in for them.
"""

import json
import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pytest
from nbclient import NotebookClient

import minipt

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SECONDS = 60  # a cell
LARGEST = 300_000  # bytes
PASSED = re.compile(r"^All (\d+) checks passed\.$", re.M)
STANDS_IN = "not in the cache"  # what a reader is told of random numbers, or of the toy set
# A machine's own paths, and what a failing cell or a terminal would leave.
UNWANTED = re.compile(r"/(?:home|root|tmp|usr|opt|var|Users)/|[A-Z]:\\|Traceback|Warning|\x1b")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def kernel_environment(folder: Path) -> dict[str, str]:
    """Variables under which the kernel `python3` is this interpreter with this `minipt`."""
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    return {
        "JUPYTER_PATH": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": str(Path(minipt.__file__).parents[1]),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        # Two BLAS threads that wait for a core which others use are many times slower than one.
        "OPENBLAS_NUM_THREADS": "1",
    }


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run all cells in the folder and put in place what they show; raise where a cell does."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)


def outputs_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook: nbformat.NotebookNode) -> str:
    """All that a reader sees as text."""
    shown = (o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs_of(notebook))
    return "".join(shown)


def assert_clean(notebook: nbformat.NotebookNode) -> None:
    kinds = {output.output_type for output in outputs_of(notebook)}
    assert kinds <= {"stream", "execute_result", "display_data"}
    assert not [output for output in outputs_of(notebook) if output.get("name") == "stderr"]
    assert not UNWANTED.search(printed(notebook))


def test_there_is_a_notebook():
    assert NOTEBOOKS


@notebooks
def test_runs_and_finds_what_it_claims(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in kernel_environment(tmp_path / "jupyter").items():
        monkeypatch.setenv(name, value)
    cache = tmp_path / "cache"
    monkeypatch.setenv("MINIPT_CACHE", str(cache))
    folder = tmp_path / "empty"
    folder.mkdir()
    notebook = nbformat.read(path, as_version=4)
    stored = PASSED.findall(printed(notebook))
    execute(notebook, folder)
    assert_clean(notebook)
    assert len(stored) == 1 and int(stored[0]) > 0
    assert PASSED.findall(printed(notebook)) == stored
    looks_for_more = any("_is_here(" in cell.source for cell in notebook.cells)
    assert (STANDS_IN in printed(notebook)) == looks_for_more
    assert not list(folder.iterdir()), "a notebook leaves no files"
    assert not cache.exists(), "a notebook fetches nothing"


@notebooks
def test_is_stored_executed_clean_and_small(path: Path):
    assert path.stat().st_size < LARGEST
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert_clean(notebook)
    assert STANDS_IN not in printed(notebook), "stored without the real bases and messages"
    assert notebook.metadata == METADATA
    assert not [cell.id for cell in notebook.cells if cell.metadata], "times or an editor's state"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not UNWANTED.search("".join(cell.source for cell in notebook.cells))


def store() -> None:
    with TemporaryDirectory() as folder:
        os.environ.update(kernel_environment(Path(folder)))
        for path in NOTEBOOKS:
            notebook = nbformat.read(path, as_version=4)
            execute(notebook, Path(folder))
            for cell in notebook.cells:
                cell.metadata = {}
            nbformat.write(notebook, path)


if __name__ == "__main__":
    store()
