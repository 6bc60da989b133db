"""What one would try instead of a soft prompt, each a short file with one idea.

All learn by the loop of `learn.py`, on the same base, data, splits and steps, and all leave the
base as it is: `weights` (full fine-tuning, BitFit), `lora`, `probe`, `prefix`, `discrete`; variants
of the soft prompt itself in `regularised` and `residual`; and what learns nothing, prompts written
by hand, in `written`. A bag of words stands in `minipt.baseline`.
"""

from minipt.learn import Learner
from minipt.rivals.lora import LoraLearner
from minipt.rivals.prefix import MlpPrefixLearner, PrefixLearner
from minipt.rivals.probe import ProbeLearner
from minipt.rivals.weights import BitFitLearner, FullLearner
from minipt.tune import PromptLearner

LEARNERS: dict[str, type[Learner]] = {
    learner.name: learner
    for learner in (
        PromptLearner,
        FullLearner,
        BitFitLearner,
        LoraLearner,
        ProbeLearner,
        PrefixLearner,
        MlpPrefixLearner,
    )
}

# The learning rate of each: the best of four, of a prefix's six, about a factor of 3 apart, by the
# accuracy on the validation split of "questions" after 250 steps with the tiny base and seed 0. For
# each a lower and a higher rate did worse. Another base may ask for others.
RATES = {
    "full": 0.001,
    "bitfit": 0.03,
    "lora": 0.01,
    "probe": 0.03,
    "prefix": 0.3,
    "prefix-mlp": 0.003,
}
