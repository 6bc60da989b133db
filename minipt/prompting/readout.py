"""From hidden states to an answer: which rows are read, and what they are compared with.

In: the hidden states of texts, and the `choices` of their batch. Out: logits, one a choice. The
base's head decides which of three ways is taken. All end in a product of features with a table:

- "language": the row at the text's end predicts the next token. The choices are token ids, which
  are rows of the output table (the verbalizer of Schick & Schütze 2021, section 3).
- "masked": the row at the mask predicts the masked token, after a small map of its own (Devlin et
  al. 2019).
- None, an encoder: the mean of the text's rows, at length 1, is compared with vectors (K, C). While
  these are embeddings of sentences, at length 1 too, the product is a cosine (Reimers & Gurevych
  2019).

With any head the choices may be vectors that are trained: a linear head beside the prompt. A label
of several tokens has the probability of all its tokens together, relative to the other labels'.
"""

import numpy as np

from minipt.maths import ops
from minipt.prompting.text import Batch
from minipt.transformer.base import Base
from minipt.transformer.layer import Part
from minipt.transformer.model import ACTIVATIONS
from minipt.transformer.trace import Gradients, Tape, add_gradient

# Cosines lie close together; divided by this they become logits (as sentence encoders are trained).
TEMPERATURE = 0.05


def rows_to_read(base: Base, batch: Batch) -> np.ndarray:
    """Indices into T of the rows that the answer is made from. (B, R), all rows without a head"""
    if base.config.head is not None:
        return batch.answer_rows
    B, T = batch.ids.shape
    return np.broadcast_to(np.arange(T), (B, T))


def readout(base: Base, hidden: np.ndarray, batch: Batch, tape: Tape) -> np.ndarray:
    """The answers of a batch, computed for the rows that count and no others.

    hidden (B, R, C) of the rows in `rows_to_read` -> logits (N, K), N answers of K choices or,
    without choices, of the whole vocabulary
    """
    features = read_features(base, hidden, batch, tape)  # (N, C)
    tape.keep_for_backward("text.features", features)
    logits = ops.times_transposed(features, choice_vectors(base, batch.choices))  # (N, K)
    if base.config.head == "masked" and not _are_vectors(batch.choices):
        bias = base.params["head.bias"]
        logits += bias if batch.choices is None else bias[batch.choices]
    if base.config.head is None:
        logits /= TEMPERATURE
    return logits


def read_features(base: Base, hidden: np.ndarray, batch: Batch, tape: Tape) -> np.ndarray:
    """What is compared with the choices: hidden (B, R, C), as for `readout`, -> (N, C)"""
    if base.config.head == "language":
        return hidden[batch.counted]
    if base.config.head == "masked":
        return _masked_head(base, hidden[batch.counted], tape)
    return embeddings(hidden, batch, tape)


def readout_dx(
    base: Base,
    dlogits: np.ndarray,
    batch: Batch,
    tape: Tape,
    gradients: Gradients | None = None,
) -> np.ndarray:
    """logits = features tableᵀ, so dfeatures = dlogits table; then back to the rows.

    gradients: as in `StreamLayout`, for a masked-word head's own map.
    dlogits (N, K) -> dhidden (B, R, C), zero where a row does not count
    """
    if base.config.head is None:
        dlogits = dlogits / TEMPERATURE
    dfeatures = ops.times(dlogits, choice_vectors(base, batch.choices))  # (N, C)
    tape.show_grad("text.features", dfeatures)
    return _features_dx(base, dfeatures, batch, tape, gradients or {})


def readout_dw(
    base: Base, dlogits: np.ndarray, batch: Batch, tape: Tape, gradients: Gradients
) -> None:
    """The gradients of what features are compared with: dtable = dlogitsᵀ features.

    Of choices that are vectors as "choices" (K, C), of the rest under the parameters' names; those
    that are wanted, before `readout_dx`, which reads the features for the last time.
    """
    if base.config.head is None:
        dlogits = dlogits / TEMPERATURE
    features, params = tape.saved["text.features"], base.params  # (N, C)
    if _are_vectors(batch.choices):
        if "choices" in gradients:
            add_gradient(gradients, "choices", dlogits.T @ features)
        return
    table = "token.table" if base.config.tied else "output.table"
    if table in gradients:
        drows = dlogits.T @ features  # (K, C)
        add_gradient(gradients, table, _of_all(params[table], batch.choices, drows))
    if "head.bias" in gradients:
        dbias = dlogits.sum(0)  # (K,)
        add_gradient(gradients, "head.bias", _of_all(params["head.bias"], batch.choices, dbias))


def label_logits(logits: np.ndarray, batch: Batch) -> np.ndarray:
    """Of labels of several tokens one number a label; other answers stay as they are.

    logits (N, V) -> (B / K, K): Σ log p over the tokens of a label
    """
    if batch.labels is None:
        return logits
    return _sums_by_label(-ops.cross_entropy(logits, batch.counted_targets)[0], batch)


def label_loss(losses: np.ndarray, batch: Batch, tape: Tape) -> tuple[float, np.ndarray]:
    """The loss over labels of several tokens, and its gradient for the tokens' losses.

    score_k = -Σ losses of label k's tokens, and the loss is the cross-entropy of the scores. So
    d loss / d losses_n = -dscore_k for each token n of label k.

    losses (N,) -> loss, dlosses (N,)
    """
    scores = _sums_by_label(-losses, batch)  # (B / K, K)
    label_losses, probabilities = ops.cross_entropy(scores, batch.labels)
    dlabels = np.full_like(label_losses, 1.0 / len(label_losses))
    dscores = ops.cross_entropy_dx(dlabels, probabilities, batch.labels)  # (B / K, K)
    tape.show("text.scores", scores)
    tape.show_grad("text.scores", dscores)
    return label_losses.mean(), -dscores.ravel()[batch.counted.nonzero()[0]]


def _sums_by_label(values: np.ndarray, batch: Batch) -> np.ndarray:
    """values (N,) of the tokens that count -> their sums (B / K, K)"""
    sums = np.zeros(len(batch.ids), values.dtype)  # (B,) one row a text and label
    np.add.at(sums, batch.counted.nonzero()[0], values)
    return sums.reshape(len(batch.labels), -1)


def choice_vectors(base: Base, choices: np.ndarray | None) -> np.ndarray:
    """The rows that features are compared with: (K, C), or (V, C) without choices."""
    if _are_vectors(choices):
        return choices.astype(base.dtype, copy=False)
    table = base.params.get("output.table", base.params["token.table"])
    return table if choices is None else table[choices]


def embeddings(hidden: np.ndarray, batch: Batch, tape: Tape) -> np.ndarray:
    """A text as one vector of length 1, in the direction of the mean of its real rows.

    hidden (B, T, C) -> (B, C)
    """
    pooled = ops.mean_pool(hidden, _real(batch, hidden.dtype))
    unit, length = ops.normalize(pooled)
    tape.show("text.pooled", pooled)
    tape.keep_for_backward("text.length", length)
    return unit


def _features_dx(
    base: Base, dfeatures: np.ndarray, batch: Batch, tape: Tape, gradients: Gradients
) -> np.ndarray:
    """(N, C) -> (B, R, C)"""
    features = tape.take("text.features")
    if base.config.head is None:
        dpooled = ops.normalize_dx(dfeatures, features, tape.take("text.length"))
        tape.show_grad("text.pooled", dpooled)
        return ops.mean_pool_dx(dpooled, _real(batch, dpooled.dtype))
    if base.config.head == "masked":
        dfeatures = _masked_head_dx(base, dfeatures, tape, gradients)
    dhidden = np.zeros((*batch.counted.shape, dfeatures.shape[1]), dfeatures.dtype)  # (B, R, C)
    dhidden[batch.counted] = dfeatures
    return dhidden


def _masked_head(base: Base, rows: np.ndarray, tape: Tape) -> np.ndarray:
    """norm(activation(dense(rows))), as BERT was trained to guess a masked word. (N, C) -> same"""
    head = Part(base, tape, "text", "head.")
    dense = head.keep_for_backward("dense", head.linear("dense", rows))
    active, y_over_x = ACTIVATIONS[base.config.activation][0](dense)
    head.keep_for_backward("y_over_x", y_over_x)
    return head.norm("norm", head.show("active", active))


def _masked_head_dx(
    base: Base, dfeatures: np.ndarray, tape: Tape, gradients: Gradients
) -> np.ndarray:
    """`_masked_head` from its last line to its first. (N, C) -> same"""
    head = Part(base, tape, "text", "head.", gradients)
    dactive = head.show_grad("active", head.norm_dx("norm", dfeatures))
    activation_dx = ACTIVATIONS[base.config.activation][1]
    ddense = activation_dx(dactive, head.take("dense"), head.take("y_over_x"))
    return head.linear_dx("dense", head.show_grad("dense", ddense))


def _of_all(param: np.ndarray, choices: np.ndarray | None, drows: np.ndarray) -> np.ndarray:
    """The gradient of a whole table (V, C) or bias (V,), from that of its rows that were used."""
    if choices is None:
        return drows
    whole = np.zeros_like(param)
    np.add.at(whole, choices, drows)
    return whole


def _are_vectors(choices: np.ndarray | None) -> bool:
    return choices is not None and choices.ndim == 2


def _real(batch: Batch, dtype: np.dtype) -> np.ndarray:
    """1 for a text's tokens, 0 for its padding. (B, T)"""
    return (np.arange(batch.ids.shape[1]) < batch.lengths[:, None]).astype(dtype)
