"""Gradient-boosted trees as plain numbers: learned with scikit-learn, applied without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

Floats = NDArray[np.floating[Any]]


class Tree(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nodes as columns: a row goes left where its feature is at most the threshold."""

    feature: list[int]  # -1: a leaf
    threshold: list[float]
    left: list[int]
    right: list[int]
    value: list[float]  # of a leaf


class Trees(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sum of trees on the logit scale."""

    start: float
    trees: list[Tree]

    def probability(self, features: Floats) -> NDArray[np.float64]:
        """Return the probability of each row of ``features``, (N, F) to (N,)."""
        total = np.full(len(features), self.start)
        rows = np.arange(len(features))
        for tree in self.trees:
            feature, threshold = np.array(tree.feature), np.array(tree.threshold)
            children = np.array([tree.right, tree.left])
            node = np.zeros(len(features), np.intp)
            inside = rows
            while len(inside):
                at = node[inside]
                goes_left = features[inside, feature[at]] <= threshold[at]
                node[inside] = children[goes_left.astype(np.intp), at]
                inside = inside[feature[node[inside]] >= 0]
            total += np.array(tree.value)[node]
        return np.asarray(1 / (1 + np.exp(-total)))


def classifier(seed: int, rounds: int, rate: float) -> HistGradientBoostingClassifier:
    """Return what scikit-learn is to fit: so many trees, so much of what each would like."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=rounds,
        learning_rate=rate,
        max_leaf_nodes=24,
        min_samples_leaf=40,
        l2_regularization=1.0,
        max_features=0.4,
        early_stopping=False,
        random_state=seed,
    )


def fit_trees(
    features: Floats,
    right: NDArray[np.bool_],
    *,
    seeds: int = 1,
    rounds: int = 250,
    rate: float = 0.06,
) -> Trees:
    """Return trees that tell the rows that are ``right``; the mean of ``seeds`` fits.

    Each fit draws other features for each split. No feature may be NaN.
    """
    start, trees = 0.0, []
    for seed in range(seeds):
        model = classifier(seed, rounds, rate).fit(features, right)
        # scikit-learn has no public way to its trees; a test holds the sum to predict_proba.
        start += float(model._baseline_prediction.item()) / seeds
        trees += [_tree(predictor.nodes, 1 / seeds) for (predictor,) in model._predictors]
    return Trees(start=start, trees=trees)


def _tree(nodes: Any, part: float) -> Tree:
    leaf = nodes["is_leaf"].astype(bool)
    return Tree(
        feature=np.where(leaf, -1, nodes["feature_idx"].astype(int)).tolist(),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]).tolist(),
        left=nodes["left"].astype(int).tolist(),
        right=nodes["right"].astype(int).tolist(),
        value=(nodes["value"] * part).tolist(),
    )
