"""Make each chapter's two notebooks from its script.

    python notebooks/make.py [NN ...] [--execute]

A chapter is a script in percent format, `source/NN-name.py`. From it are made the student's
notebook, `NN-name.ipynb`, and the solved one, `solutions/NN-name.ipynb`. Two marks tell them apart.

    # solution: the softmax of the scores, times the values
    return ops.softmax(scores) @ values
    # end

The student gets `raise NotImplementedError("yours: the softmax of ...")` in place of these lines.

    mine = 0.9  # yours: a number from 0 to 1

The student gets `mine = ...` and the comment. A cell whose first line is `# only solved` is left
out of the student's notebook.

With --execute the solved notebooks are run and store what they print and draw. Without it they keep
what they have, if their cells are the same.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent
SOURCES = sorted((FOLDER / "source").glob("[0-9][0-9]-*.py"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
REGION = re.compile(r"^( *)# solution: (.+)\n((?:.*\n)*?)\1# end$", re.MULTILINE)
VALUE = re.compile(r"^( *[\w, ]+ = )(?!\.\.\.).+?(  # yours: .+)$", re.MULTILINE)
ONLY_SOLVED = "# only solved\n"


def student(source: Path) -> NotebookNode:
    """The notebook with stubs in place of the solutions."""
    return _notebook(source, _stub)


def solved(source: Path) -> NotebookNode:
    """The notebook with the solutions, not executed."""
    return _notebook(source, _solution)


def paths(source: Path) -> tuple[Path, Path]:
    """Where the student's and the solved notebook lie."""
    name = f"{source.stem}.ipynb"
    return FOLDER / name, FOLDER / "solutions" / name


def sources_of(notebook: NotebookNode) -> list[tuple[str, str, str]]:
    """Of each cell its id, its kind and what is written in it: all but the outputs."""
    return [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]


def _notebook(source: Path, change) -> NotebookNode:
    read = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    cells = []
    for cell in read.cells:
        text = change(cell.source)
        if text is not None:
            make = getattr(nbformat.v4, f"new_{cell.cell_type}_cell")
            cells.append(make(text, id=f"cell-{len(cells):03d}"))
    return nbformat.v4.new_notebook(cells=cells, metadata=METADATA)


def _stub(text: str) -> str | None:
    if text.startswith(ONLY_SOLVED):
        return None
    if re.search("^# solution: ", text, re.MULTILINE):
        raise SystemExit(f"a solution stands inside a function, so that its stub is one:\n{text}")
    text = REGION.sub(r'\1raise NotImplementedError("yours: \2")', text)
    return VALUE.sub(r"\1...\2", text)


def _solution(text: str) -> str:
    text = REGION.sub(lambda found: found[3].rstrip("\n"), text.removeprefix(ONLY_SOLVED))
    return VALUE.sub(lambda found: found[0].removesuffix(found[2]), text)


def kernel_environment(folder: Path) -> dict[str, str]:
    """Variables under which the kernel `python3` is this interpreter with this `minipt`."""
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    return {
        "JUPYTER_PATH": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": str(FOLDER.parent),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        # Two BLAS threads that wait for a core which others use are many times slower than one.
        "OPENBLAS_NUM_THREADS": "1",
    }


def execute(notebook: NotebookNode, folder: Path, seconds: int | None = None) -> None:
    """Run all cells in the folder and put in place what they show; raise where a cell does.

    seconds: the most that a cell may take; None: there is no limit.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=seconds,
        startup_timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)


def make(source: Path, run: bool) -> None:
    """Write both notebooks of a chapter."""
    for_student, for_teacher = paths(source)
    nbformat.write(student(source), for_student)
    notebook = solved(source)
    if run:
        with TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
    elif for_teacher.exists():
        stored = nbformat.read(for_teacher, as_version=4)
        if sources_of(stored) == sources_of(notebook):
            notebook = stored
        else:
            print(f"{for_teacher.name} has changed: make it again with --execute")
    nbformat.write(notebook, for_teacher)


def main() -> None:
    """Read the arguments and make what they name."""
    parser = argparse.ArgumentParser(description="Make the course's notebooks from their scripts.")
    parser.add_argument("chapters", nargs="*", help="two digits each, such as 02 (default: all)")
    parser.add_argument("--execute", action="store_true", help="run the solved notebooks too")
    given = parser.parse_args()
    names = {source.stem[:2]: source for source in SOURCES}
    if unknown := [name for name in given.chapters if name not in names]:
        parser.error(f"there is no chapter {unknown[0]}: chapters are {', '.join(names)}")
    with TemporaryDirectory() as folder:
        os.environ.update(kernel_environment(Path(folder)))
        for name in given.chapters or names:
            make(names[name], given.execute)


if __name__ == "__main__":
    main()
