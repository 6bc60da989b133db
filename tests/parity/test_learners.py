"""What learns instead of a prompt, against PEFT, transformers' cache and torch's own gradients."""

from contextlib import nullcontext

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
from helpers.bases import FAMILIES, base_that_reads, random_base, random_batch, small_task
from helpers.comparison import TOLERANCES
from helpers.recorder import answers, attention_mask
from helpers.twins import twin
from helpers.watching import computing_in_float64
from torch.func import functional_call
from transformers import DynamicCache, PreTrainedModel

from minipt.learning.optimizers import Arrays
from minipt.learning.settings import Settings
from minipt.loading.families import all_places
from minipt.maths.gradcheck import compare
from minipt.prompting.text import Batch
from minipt.rivals.lora import LoraLearner
from minipt.rivals.prefix import prefix_step
from minipt.rivals.weights import weights_step
from minipt.transformer.base import Base

ADAPTED = {"query": ("q_proj", "query"), "value": ("v_proj", "value")}  # in a Llama, in a BERT
WITH_A_HEAD = [family for family in FAMILIES if family != "encoder"]
every_family = pytest.mark.parametrize("family", WITH_A_HEAD)
every_type = pytest.mark.parametrize("dtype", [np.float32, np.float64])
choices_or_not = pytest.mark.parametrize("choices", [0, 3])

Tensors = dict[str, torch.Tensor]


def in_type(dtype: type):
    return computing_in_float64() if dtype == np.float64 else nullcontext()


def mean_loss(whole: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Of the rows that are read, out of whole (B, T, V)."""
    picked = answers(whole, batch, 0)
    return torch.nn.functional.cross_entropy(picked, torch.tensor(batch.targets))


def inputs_of(batch: Batch) -> Tensors:
    return {"input_ids": torch.tensor(batch.ids), "attention_mask": attention_mask(batch, 0)}


def as_tensors(arrays: Arrays) -> Tensors:
    return {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}


def gradients_of(tensors: Tensors) -> Arrays:
    return {name: tensor.grad.numpy() for name, tensor in tensors.items()}


def assert_same(ours: Arrays, theirs: Arrays, dtype: type) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert compare(name, ours[name], expected) < TOLERANCES[np.dtype(dtype).name], name


# Full fine-tuning.


def as_in_minipt(base: Base, theirs: Arrays) -> Arrays:
    """By minipt's names, as minipt's arrays lie, what transformers calls and turns otherwise."""
    found = {}
    for name, place in all_places(base.config, with_trunk=True).items():
        array = theirs[place.name].T if place.transposed else theirs[place.name]
        found[name] = array if place.third is None else np.split(array, 3, -1)[place.third]
    return found


@every_type
@choices_or_not
@every_family
def test_every_parameters_gradient_is_transformers(family: str, choices: int, dtype: type):
    base = random_base(2, **FAMILIES[family]).astype(dtype)
    batch = random_batch(base, texts=4, tokens=7, seed=5, choices=choices)
    _, ours = weights_step(base, batch, base.params)
    model = twin(base).requires_grad_(True)
    model.get_input_embeddings().padding_idx = None  # BERT's token 0 would not learn
    with in_type(dtype):
        mean_loss(model(**inputs_of(batch)).logits, batch).backward()
    theirs = as_in_minipt(base, gradients_of(dict(model.named_parameters())))
    if base.config.positions == "learned":
        for name in [name for name in ours if name.endswith("key.bias")]:
            # It adds the same to all scores of a row: of its gradient there is only rounding.
            of_query = np.abs(ours[name.replace("key", "query")]).max()
            small = TOLERANCES[np.dtype(dtype).name] * of_query
            assert max(np.abs(ours.pop(name)).max(), np.abs(theirs.pop(name)).max()) < small
    assert_same(ours, theirs, dtype)


# LoRA.


def lora_case(family: str, dtype: type) -> tuple[LoraLearner, Batch]:
    """B is not zero here, so that A has a gradient."""
    base = base_that_reads(family, channels=12, heads=3).astype(dtype)
    learner = LoraLearner(base, small_task(), Settings(seed=1))
    rng = np.random.default_rng(2)
    for name, array in learner.arrays.items():
        if name.endswith(".B"):
            array += 0.3 * rng.standard_normal(array.shape)
    return learner, random_batch(base, texts=4, tokens=7, seed=5, choices=3)


def peft_step(model: PreTrainedModel, learner: LoraLearner, batch: Batch) -> tuple[float, Arrays]:
    """PEFT's own adapter, with the learner's matrices in it."""
    names = [theirs for both in ADAPTED.values() for theirs in both]
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=names)
    tuned = peft.get_peft_model(model, config).to(model.dtype)
    places = all_places(learner.base.config, with_trunk=True)
    matrices = {}
    for name, array in learner.arrays.items():
        weight, letter = name.removesuffix(".A").removesuffix(".B"), name[-1]
        module = places[weight].name.removesuffix(".weight")
        matrices[name] = tuned.get_submodule(f"base_model.model.{module}.lora_{letter}.default")
        matrices[name].weight.data = torch.tensor(array.T.copy())
    loss = mean_loss(tuned(**inputs_of(batch)).logits, batch)
    loss.backward()
    return loss.item(), {name: m.weight.grad.numpy().T for name, m in matrices.items()}


@every_type
@pytest.mark.parametrize("family", ["llama", "llama-with-biases", "bert"])
def test_lora_is_pefts(family: str, dtype: type):
    learner, batch = lora_case(family, dtype)
    loss, ours = learner.loss_and_gradients(batch, np.random.default_rng(0))
    with in_type(dtype):
        their_loss, theirs = peft_step(twin(learner.base), learner, batch)
    assert loss == pytest.approx(their_loss, rel=TOLERANCES[np.dtype(dtype).name])
    assert_same(ours, theirs, dtype)


@every_type
def test_in_a_gpt2_loras_gradients_are_torchs(dtype: type):
    """Query, key and value are one matrix there, which PEFT would change as a whole."""
    learner, batch = lora_case("gpt2", dtype)
    loss, ours = learner.loss_and_gradients(batch, np.random.default_rng(0))
    tensors, model = as_tensors(learner.arrays), twin(learner.base)
    changed = {}

    def change(weight: str) -> torch.Tensor:
        return 2.0 * tensors[f"{weight}.A"] @ tensors[f"{weight}.B"]

    for i in range(learner.base.config.layers):
        at = f"transformer.h.{i}.attn.c_attn.weight"
        query, value = (change(f"h{i}.attn.{part}.weight") for part in ("query", "value"))
        whole = torch.cat([query, torch.zeros_like(query), value], 1)
        changed[at] = model.get_parameter(at) + whole
    theirs = mean_loss(functional_call(model, changed, kwargs=inputs_of(batch)).logits, batch)
    theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=TOLERANCES[np.dtype(dtype).name])
    assert_same(ours, gradients_of(tensors), dtype)


# The deep prefix.


def random_prefix(base: Base, length: int) -> Arrays:
    config, rng = base.config, np.random.default_rng(4)
    shape = (config.layers, config.key_value_heads or config.heads, length)
    shape += (config.channels // config.heads,)
    return {name: rng.standard_normal(shape).astype(base.dtype) for name in ("keys", "values")}


def logits_behind(model: PreTrainedModel, batch: Batch, prefix: Tensors) -> torch.Tensor:
    """transformers reads the prefix as if it were what earlier tokens left. (B, T, V)"""
    B, P = len(batch.ids), prefix["keys"].shape[2]
    each = [
        tuple(array.expand(B, *array.shape) for array in layer)
        for layer in zip(prefix["keys"], prefix["values"], strict=True)
    ]
    mask = attention_mask(batch, P)  # (B, P+T)
    given = {"input_ids": torch.tensor(batch.ids), "past_key_values": DynamicCache(each)}
    if model.config.model_type != "bert":
        return model(**given, attention_mask=mask).logits
    # As an encoder it knows a cache only without its head, and a mask of P+T columns only whole.
    whole = mask[:, None, None].bool().expand(B, 1, batch.ids.shape[1], -1)
    return model.cls(model.bert(**given, attention_mask=whole).last_hidden_state)


@every_type
@choices_or_not
@every_family
def test_a_prefixs_gradient_is_that_through_transformers_cache(
    family: str, choices: int, dtype: type
):
    base = random_base(2, **FAMILIES[family]).astype(dtype)
    batch = random_batch(base, texts=4, tokens=7, seed=5, choices=choices)
    prefix = random_prefix(base, 5)
    loss, ours = prefix_step(base, batch, prefix)
    tensors = as_tensors(prefix)
    with in_type(dtype):
        theirs = mean_loss(logits_behind(twin(base), batch, tensors), batch)
        theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=TOLERANCES[np.dtype(dtype).name])
    assert_same(ours, gradients_of(tensors), dtype)
