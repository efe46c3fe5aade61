import numpy as np
import pytest
from sklearn.decomposition import PCA

from foretaste.cleansers._base.axes import plane, principal_axes, regular


def test_principal_axes_are_those_of_scikit_learn() -> None:
    points = np.random.default_rng(0).normal(size=(50, 4)) * [5, 1, 3, 0.5]
    centred = points - points.mean(axis=0)
    axes, theirs = principal_axes(centred, 2), PCA(2).fit(points).components_
    assert np.abs((axes * theirs).sum(axis=1)) == pytest.approx([1, 1])
    flat = plane(points.astype(np.float32))
    assert flat.shape == (50, 2)
    assert np.allclose(flat, centred @ axes.T, atol=1e-3)
    assert plane(points[:, :1]).shape == (50, 2)


def test_a_regular_covariance_can_be_inverted_and_is_hardly_another() -> None:
    covariance = regular(np.diag([3.0, 1.0, 0.0]), 1e-4)
    assert covariance == pytest.approx(np.diag([3.0, 1.0, 0.0]), abs=2e-4)
    assert np.linalg.eigvalsh(covariance).min() > 1e-4
    assert np.linalg.eigvalsh(regular(np.zeros((2, 2)), 1e-4)).min() > 0
