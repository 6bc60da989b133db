"""The course's notebooks are what their scripts make, run from top to bottom, and are clean.

The tests run them with an empty cache and without a network.
"""

import json
import re
from pathlib import Path

import make
import nbformat
import pytest

from minipt.course import record

CHAPTERS = make.SOURCES
STUDENTS, SOLVED = (list(each) for each in zip(*map(make.paths, CHAPTERS), strict=True))
SECONDS = 60  # a cell
LARGEST = 300_000  # bytes
STANDS_IN = "not in the cache"  # what a reader is told of random numbers, or of the toy set
# A machine's own paths, and what a failing cell or a terminal would leave.
UNWANTED = re.compile(r"/(?:home|root|tmp|usr|opt|var|Users)/|[A-Z]:\\|Traceback|Warning|\x1b")


def notebooks(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name)


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


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that runs a notebook in an empty folder, with an empty cache."""
    for name, value in make.kernel_environment(tmp_path / "jupyter").items():
        monkeypatch.setenv(name, value)
    cache, folder = tmp_path / "cache", tmp_path / "empty"
    monkeypatch.setenv("MINIPT_CACHE", str(cache))
    folder.mkdir()

    def ran(path: Path) -> tuple[nbformat.NotebookNode, Path]:
        notebook = nbformat.read(path, as_version=4)
        make.execute(notebook, folder, SECONDS)
        assert_clean(notebook)
        assert not cache.exists(), "a notebook fetches nothing"
        return notebook, folder

    return ran


def answers(folder: Path) -> dict:
    """What a chapter's summary wrote, which is all that a notebook leaves."""
    (file,) = folder.iterdir()
    return json.loads(file.read_text(encoding="utf-8"))


def test_every_notebook_has_a_script():
    assert sorted(make.FOLDER.glob("*.ipynb")) == sorted(STUDENTS)
    assert sorted(make.FOLDER.glob("solutions/*.ipynb")) == sorted(SOLVED)


@notebooks(CHAPTERS)
def test_a_chapter_is_what_its_script_makes(path: Path):
    """`python notebooks/make.py` makes them again."""
    for_student, for_teacher = make.paths(path)
    assert for_student.read_text(encoding="utf-8") == nbformat.writes(make.student(path)) + "\n"
    stored = nbformat.read(for_teacher, as_version=4)
    assert make.sources_of(stored) == make.sources_of(make.solved(path))


@notebooks(CHAPTERS)
def test_a_chapter_has_the_headings_of_its_exercises(path: Path):
    record.begin(int(path.name[:2]))
    headings = re.findall(r"^# (### \d.*)$", path.read_text(encoding="utf-8"), re.M)
    assert headings == [each.heading for each in record.results().exercises.values()]


@notebooks(SOLVED)
def test_a_solution_runs_and_all_of_it_is_right(path: Path, run):
    _, folder = run(path)
    found = answers(folder)
    assert found["right"] == found["of"] > 0
    assert [figure for figure in found["bands"] if not figure["inside"]] == []


@notebooks(STUDENTS)
def test_a_students_notebook_runs_with_every_exercise_open(path: Path, run):
    _, folder = run(path)
    exercises = answers(folder)["exercises"]
    assert {each["status"] for each in exercises.values()} == {"open"}


@notebooks(STUDENTS)
def test_a_students_notebook_has_no_outputs_and_no_solutions(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert outputs_of(notebook) == []
    assert "# solution" not in path.read_text(encoding="utf-8")


@notebooks(SOLVED)
def test_is_stored_executed_clean_and_small(path: Path):
    assert path.stat().st_size < LARGEST
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert_clean(notebook)
    assert STANDS_IN not in printed(notebook), "stored without the real bases and messages"
    assert notebook.metadata == make.METADATA
    assert not [cell.id for cell in notebook.cells if cell.metadata], "times or an editor's state"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not UNWANTED.search("".join(cell.source for cell in notebook.cells))
