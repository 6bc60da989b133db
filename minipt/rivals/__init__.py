"""What one would try instead of a soft prompt, each a short file with one idea.

In: a base, a task and settings. Out: a `Learner`, for the same loop, data, splits and steps, which
does not change the base.

    weights      full fine-tuning; BitFit, the biases alone
    lora         LoRA: a product of two thin matrices beside each weight
    probe        a linear head on the frozen base's hidden states
    prefix       deep prefixes: keys and values of every layer
    regularised  a prompt with decay, dropout, noise, or a pull to words
    discrete     a search over real tokens
    written      prompts written by hand, which learn nothing
    residual     a prompt through a network
    wayward      a prompt held near words of another meaning
"""

from minipt.errors import MiniptError
from minipt.learning.learner import Learner
from minipt.learning.tune import PromptLearner
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
from minipt.transformer.base import Base

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
# Learning rates to choose from on validation, the likeliest first. For the tiny base, seed 0, the
# first of each was the best of four on validation (for a prefix of six, for a prompt of five): on
# "questions" after 250 steps, for a prompt on film reviews.
RATES = {
    "prompt": (1.0, 0.3),
    "full": (1e-3, 3e-4),
    "bitfit": (3e-2, 1e-2),
    "lora": (1e-2, 3e-3),
    "probe": (3e-2, 1e-1),
    "prefix": (0.3, 0.1),
    "prefix-mlp": (3e-3, 1e-2),
    "prompt-residual": (0.1, 0.03),  # the rate of its network's weights too
    "discrete": (1.0,),  # it uses none
}
# The same for larger bases: the best of two to four on validation of film reviews, seed 0, after
# 100 steps with MiniLM, and with SmolLM2 after 40, on the first 200 texts of the split. SmolLM2's
# prompt has the rate of `minipt tune`.
RATES_OF = {
    "minilm": {
        "prompt": (0.02,),
        "full": (3e-4,),
        "bitfit": (3e-3,),
        "lora": (3e-3,),
        "probe": (0.03,),
        "prefix": (0.1,),
        "prefix-mlp": (3e-3,),
    },
    "smollm2-135m": {
        "prompt": (0.02,),
        "full": (3e-5,),
        "lora": (3e-3,),
        "probe": (3e-3,),
        "prefix": (0.01,),
        "prefix-mlp": (3e-4,),
    },
}


def find_learner(name: str) -> type[Learner]:
    """The class of this name. Raises MiniptError where there is none."""
    if name not in LEARNERS:
        raise MiniptError(f"there is no rival {name!r}: choose one of {', '.join(LEARNERS)}")
    return LEARNERS[name]


def rates_for(learner: str, base: Base) -> tuple[float, ...]:
    """Learning rates to try, the likeliest first; variants without their own take the prompt's."""
    find_learner(learner)
    name = learner if learner in RATES else PromptLearner.name
    return RATES_OF.get(base.name, {}).get(name, RATES[name])
