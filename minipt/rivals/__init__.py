"""What one would try instead of a soft prompt, each a short file with one idea.

All learn by the loop of `learn.py`, on the same base, data, splits and steps, and all leave the
base as it is: `weights` (full fine-tuning, BitFit), `lora`, `probe`, `prefix`, `discrete`; variants
of the soft prompt itself in `regularised`, `residual` and `wayward`; and what learns nothing,
prompts written by hand, in `written`. A bag of words stands in `minipt.baseline`.
"""

from minipt.learn import Learner
from minipt.rivals.lora import LoraLearner
from minipt.rivals.wayward import WaywardLearner
from minipt.rivals.weights import BitFitLearner, FullLearner
from minipt.tune import PromptLearner

LEARNERS: dict[str, type[Learner]] = {
    learner.name: learner
    for learner in (PromptLearner, FullLearner, BitFitLearner, LoraLearner, WaywardLearner)
}
