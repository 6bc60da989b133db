"""The function `minipt.xray`: training steps on one text, to look at.

In: a base, a prompt and a text. Out: an `XRay`, which can be saved as a page or a picture, and
shows itself in a notebook.
"""

from dataclasses import replace
from pathlib import Path

from minipt.errors import MiniptError
from minipt.page.document import document, frame
from minipt.page.steps import Steps, take_steps
from minipt.page.summary import draw
from minipt.prompting.prompt import SoftPrompt
from minipt.results.store import PAGES, save_page, write_text
from minipt.tasks.task import Task
from minipt.transformer.base import Base

ENDINGS = (*PAGES, ".html")


class XRay(Steps):
    """Training steps on one text, with .trace, .tokens, .loss, .gradient and .probabilities."""

    def save(self, path: str | Path) -> None:
        """Write a page (.html) or a picture of the first step (.png, .pdf, .svg), complete or not.

        Raises MiniptError for another ending and where it cannot be written.
        """
        check_ending(Path(path))
        if Path(path).suffix.lower() == ".html":
            write_text(Path(path), document(self))
        else:
            save_page(draw(self), Path(path))

    def _repr_html_(self) -> str:
        """The page in a frame, for a notebook."""
        return frame(document(self))


def xray(
    base: Base,
    prompt: SoftPrompt,
    text: str,
    label: str | None = None,
    steps: int = 1,
    task: Task | None = None,
    wiring: str | None = None,
) -> XRay:
    """Take the first steps of `minipt tune` on one text and keep every array of them.

    label: the right answer; None: the one that the prompt finds least likely, so that there is
    something to learn. steps: 1 to 20. task: says the labels and the template; None: a tuned prompt
    knows them. wiring: as in `loss_and_gradient`. The prompt stays as it is.

    Raises MiniptError for a prompt that knows no labels where no task is named, a prompt for
    another base, an unknown label or wiring, a number of steps outside 1 to 20, a text without
    tokens, and answers that are not finite.
    """
    if prompt.fingerprint != base.fingerprint:
        raise MiniptError(
            f"the prompt was made for base {prompt.base_name!r}, not for base {base.name!r}: a "
            "prompt works only on its own base"
        )
    if task is not None:
        prompt = for_task(prompt, task)
    if not prompt.about.get("labels"):
        raise MiniptError(
            "the prompt knows no labels: tune it for some, or name a task, such as "
            'task=minipt.load_task("sms-spam")'
        )
    if not isinstance(text, str):
        raise MiniptError(f"an x-ray is of one text, a string, not {text!r:.40}")
    return XRay(**vars(take_steps(base, prompt, text, label, steps, wiring)))


def for_task(prompt: SoftPrompt, task: Task) -> SoftPrompt:
    """The same vectors, asked as the task says."""
    asked = {
        "labels": list(task.labels),
        "label_words": list(task.label_words),
        "template": task.template,
    }
    return replace(prompt, about=prompt.about | asked)


def check_ending(path: Path | None) -> None:
    """Raise MiniptError for a path whose ending is neither a page's nor a picture's."""
    if path and path.suffix.lower() not in ENDINGS:
        raise MiniptError(f"a page is saved as {' or '.join(ENDINGS)}, which {path} is not")
