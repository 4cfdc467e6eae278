"""Class priors: what a prompt says whatever the text is, found on training examples and undone.

A language model has words that it likes, so that a prompt may rank texts well and still call most
of them by one label word. A bias a class mends that, without a forward pass of its own.
"""

import numpy as np
from numpy.typing import NDArray

from cliptune.types import Biases, ClassScores, Labels

STEPS = 100  # Newton's, at most
LONGEST = 2.0  # step of a bias
CLOSE = 1e-6  # step after which the next, about its square, would change nothing any more


def class_biases(scores: ClassScores, labels: Labels) -> Biases:
    """The biases `(..., classes)` that make `scores + biases` fit the labels best.

    `scores` are `(..., examples, classes)`. A bias has the prior N(0, 1), so that they add up to 0
    and few examples move them little: the maximum a posteriori of a multinomial logistic
    regression whose only parameters are its intercepts, with the scores s as offsets. The sum over
    examples of log softmax(s + b)[label], less |b|^2 / 2, is concave in the biases b, and Newton's
    steps find its maximum.
    """
    *shape, examples, classes = scores.shape
    logits = scores.reshape(-1, examples, classes).astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite scores become NaN, which who asks refuses
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    counts = np.bincount(labels, minlength=classes)
    biases = np.zeros((len(logits), classes))
    going = np.arange(len(logits))  # those whose steps are not small yet
    for _ in range(STEPS):
        tried = biases[going]
        weights = np.exp(tried - tried.max(axis=-1, keepdims=True))
        expected = (odds if len(going) == len(odds) else odds[going]) * weights[:, None, :]
        expected /= expected.sum(axis=-1, keepdims=True)
        total = expected.sum(axis=-2)
        curvature = np.eye(classes) * (1 + total)[:, None, :]
        curvature -= np.swapaxes(expected, -1, -2) @ expected
        step = np.linalg.solve(curvature, (counts - total - tried)[..., None])[..., 0]
        biases[going] = tried + np.clip(step, -LONGEST, LONGEST)
        going = going[np.abs(step).max(axis=-1) > CLOSE]  # nor those that are no numbers
        if not len(going):
            break
    return biases.reshape(*shape, classes)


def calibrated(scores: ClassScores, biases: Biases | None) -> NDArray[np.floating]:
    """Class scores with the biases on them, if there are any."""
    return scores if biases is None else scores + biases[..., None, :]
