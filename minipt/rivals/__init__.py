"""What one would try instead of a soft prompt, each a short file with one idea.

All learn by the loop of `learn.py`, on the same base, data, splits and steps, and all leave the
base as it is: `weights` (full fine-tuning, BitFit), `lora`, `probe`, `prefix`, `discrete`; variants
of the soft prompt itself in `regularised`, `residual` and `wayward`; and what learns nothing,
prompts written by hand, in `written`. A bag of words stands in `minipt.baseline`.
"""

from minipt.learn import Learner
from minipt.rivals.discrete import DiscreteLearner
from minipt.rivals.lora import LoraLearner
from minipt.rivals.prefix import MlpPrefixLearner, PrefixLearner
from minipt.rivals.probe import ProbeLearner
from minipt.rivals.regularised import (
    DecayLearner,
    DecayToStartLearner,
    DropoutLearner,
    NearestLearner,
    NoiseLearner,
)
from minipt.rivals.residual import ResidualLearner
from minipt.rivals.wayward import WaywardLearner
from minipt.rivals.weights import BitFitLearner, FullLearner
from minipt.tune import PromptLearner

RIVALS = (
    PromptLearner,
    FullLearner,
    BitFitLearner,
    LoraLearner,
    ProbeLearner,
    PrefixLearner,
    MlpPrefixLearner,
    DiscreteLearner,
)
VARIANTS = (
    DecayLearner,
    DecayToStartLearner,
    DropoutLearner,
    NoiseLearner,
    NearestLearner,
    ResidualLearner,
    WaywardLearner,
)
LEARNERS: dict[str, type[Learner]] = {each.name: each for each in RIVALS + VARIANTS}
