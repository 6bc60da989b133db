"""The wayward prompt: it solves the task and reads as a sentence about something else.

Khashabi et al. 2022, "Prompt Waywardness: The Curious Case of Discretized Interpretation of
Continuous Prompts", section 3. Beside the cross-entropy stands a pull of every vector towards the
embedding of one token of any sentence one likes:

    objective = loss(v) + γ/P Σₚ |vₚ - eₚ|²,    gradient = d loss / d v + 2 γ/P (v - e)

with v the vectors (P, C) and e the sentence's embeddings (P, C): a strong decay to a start that is
a sentence. If such a prompt solves the task and still reads as the sentence, then nearest tokens do
not tell what a prompt does: a warning to the reader of `results/reading.py`.
"""

from minipt.errors import MiniptError
from minipt.learning.settings import Settings
from minipt.rivals.regularised import DecayToStartLearner
from minipt.tasks.task import Task
from minipt.transformer.base import Base

# Chosen on validation of sms-spam with the tiny base and another sentence. A tenth of it holds half
# of the vectors, and ten times as much leaves no room to learn.
GAMMA = 0.02


class WaywardLearner(DecayToStartLearner):
    """A prompt that begins as the sentence `Settings.text`, repeated or cut, and is held near it.

    gamma: how strong the pull is, 0: none. The loss that is reported stays the cross-entropy.
    Raises MiniptError where the start is no sentence.
    """

    name = "prompt-wayward"

    def __init__(self, base: Base, task: Task, settings: Settings, gamma: float = GAMMA) -> None:
        if settings.method != "text":
            raise MiniptError(
                f"{self.name} is pulled towards a sentence: give a text and the start 'text', as "
                f"`minipt evidence --claim 10` does, not {settings.method!r}"
            )
        super().__init__(base, task, settings)
        self.gamma, self.strength = gamma, 2 * gamma / settings.length
