"""Class priors: what a prompt says whatever the text is, found on training examples and undone.

A language model has words that it likes, so that a prompt may rank texts well and still call most
of them by one label word. A bias a class mends that, without a forward pass of its own.
"""

import numpy as np
from numpy.typing import NDArray

from cliptune.rewards import log_probabilities
from cliptune.types import Biases, ClassScores, Labels

STEPS = 100  # Newton's, at most
LONGEST = 2.0  # step of a bias
CLOSE = 1e-10  # step that changes nothing any more


def class_biases(scores: ClassScores, labels: Labels) -> Biases:
    """The biases `(..., classes)` that make `scores + biases` fit the labels best.

    `scores` are `(..., examples, classes)`. A bias has the prior N(0, 1), so that they add up to 0
    and few examples move them little: the maximum a posteriori of a multinomial logistic
    regression whose only parameters are its intercepts, with the scores s as offsets. The sum over
    examples of log softmax(s + b)[label], less |b|^2 / 2, is concave in the biases b, and Newton's
    steps find its maximum.
    """
    logits = scores.astype(np.float64)
    classes = logits.shape[-1]
    counts = np.bincount(labels, minlength=classes)
    biases = np.zeros((*logits.shape[:-2], classes))
    for _ in range(STEPS):
        expected = np.exp(log_probabilities(logits + biases[..., None, :]))
        gradient = counts - expected.sum(axis=-2) - biases
        curvature = np.eye(classes) * (1 + expected.sum(axis=-2))[..., None, :]
        curvature = curvature - np.swapaxes(expected, -1, -2) @ expected
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        biases = biases + np.clip(step, -LONGEST, LONGEST)
        if not np.abs(step).max() > CLOSE:  # nor is what is no number
            break
    return biases


def calibrated(scores: ClassScores, biases: Biases | None) -> NDArray[np.floating]:
    """Class scores with the biases on them, if there are any."""
    return scores if biases is None else scores + biases[..., None, :]
