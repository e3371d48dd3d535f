"""A subject that has learnt nothing: the control of Towards Monosemanticity for what a dictionary makes of noise."""

import copy
from typing import cast

import numpy as np
import torch
from torch import nn

from sae.subject import Subject


def shuffled_subject(subject: Subject, seed: int) -> Subject:
    """`subject` with the entries of every weight matrix permuted, so that each keeps its values and loses its order.

    Every parameter of two or more dimensions is a matrix here, embeddings (of tokens and of positions) and the
    unembedding included; a matrix that is used in two places is permuted once. Gains and biases have one dimension
    and stay as they are. The same seed gives the same subject. Source: Bricken et al. 2023, the section on randomised
    transformers, which shuffles the entries of the weight matrices and trains a dictionary anew.
    """
    model = copy.deepcopy(subject.model)
    rng = np.random.default_rng(seed)
    for _, weights in sorted(cast(nn.Module, model).named_parameters()):
        if weights.ndim > 1:
            order = torch.from_numpy(rng.permutation(weights.numel())).to(weights.device)
            weights.data = weights.detach().reshape(-1)[order].reshape(weights.shape)
    name = f"shuffled:{subject.digest[:16]}:{seed}"
    return Subject(model, subject.tokenizer, name, name, subject.device)
