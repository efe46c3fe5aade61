import numpy as np
import pytest

from foretaste.classifiers.classifier import Answers, Classifier
from foretaste.errors import UsageError
from foretaste.guards.guard import GuardMethod
from foretaste.guards.scale_up import ClassNorms, ScaleUp
from foretaste.samples import Images, Samples


def test_it_is_a_guard_that_needs_labels_only() -> None:
    assert isinstance(ScaleUp(), GuardMethod)
    assert not ScaleUp.needs_scores


def test_a_trigger_that_survives_amplifying_is_found(
    silent_corners: Classifier, clean: Samples, fresh: Images, trojaned: Images
) -> None:
    screener = ScaleUp().calibrate(silent_corners, clean, false_alarm_rate=0.05, seed=0)
    found = screener.screen(trojaned)
    assert found.trojaned.all()
    assert found.labels.tolist() == found.corrected.tolist() == [4] * len(trojaned)
    assert set(found.queries.tolist()) == {6}
    # 120 images set the threshold: 6 of 121 may lie above it; of 60 fresh ones, 10 or more would in 1 of 1000 sets.
    assert screener.screen(fresh).trojaned.sum() < 10


class Fading:
    """Says 1 where the first pixel is below a limit, else 0."""

    classes, sample_shape = None, None

    def classify(self, images: Images) -> Answers:
        return Answers((images[:, 0, 0, 0] < 100).astype(np.int64))


def test_the_score_is_the_share_of_factors_that_keep_the_label() -> None:
    images = np.zeros((40, 2, 2, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = [0, 10, 20, 40, 200] * 8
    samples = Samples.from_arrays(images, np.arange(40) % 2)
    screener = ScaleUp(standardise=False).calibrate(Fading(), samples, false_alarm_rate=0.05, seed=0)
    assert screener.screen(images[:5]).scores == pytest.approx([1, 4 / 5, 1 / 5, 0, 1])


def test_norms_are_those_of_the_class_and_of_all_where_there_is_little_to_go_by() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], [2000, 2000, 1])
    values = np.concatenate([rng.normal(0.2, 0.1, 2000), rng.normal(0.8, 0.2, 2000), [0.5]])
    norms = ClassNorms.of(labels, values, ScaleUp().prior)
    assert norms.mean[:2] == pytest.approx([0.2, 0.8], abs=0.02)
    assert norms.std[:2] == pytest.approx([0.1, 0.2], abs=0.01)
    assert norms.mean[[2, 4]] == pytest.approx(values.mean())
    assert norms.std[[2, 4]] == pytest.approx(values.std(), rel=1e-3)
    unseen = norms.standardise(np.array([2, 4, 400]), np.full(3, 0.9))
    assert unseen == pytest.approx((0.9 - values.mean()) / values.std(), rel=1e-3)


def test_values_that_are_all_the_same_can_be_standardised() -> None:
    norms = ClassNorms.of(np.zeros(5, np.int64), np.ones(5), 5)
    assert norms.standardise(np.array([0]), np.ones(1)) == 0


@pytest.mark.parametrize("factors", [(), (3, 1)])
def test_a_field_out_of_range_is_bad_usage(factors: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="one or more numbers above 1"):
        ScaleUp(factors=factors)


@pytest.mark.parametrize("prior", [0, -1, float("inf"), float("nan")])
def test_a_prior_is_a_number_above_0(prior: float) -> None:
    with pytest.raises(UsageError, match="prior must be a number above 0"):
        ScaleUp(prior=prior)


def test_the_larger_the_prior_the_nearer_the_classes_are_to_all(
    silent_corners: Classifier, clean: Samples, fresh: Images
) -> None:
    own, whole, plain = (
        method.calibrate(silent_corners, clean, false_alarm_rate=0.05, seed=0).screen(fresh)
        for method in (ScaleUp(), ScaleUp(prior=1e6), ScaleUp(standardise=False))
    )
    # The norms of all change every score alike.
    assert np.corrcoef(whole.scores, plain.scores)[0, 1] == pytest.approx(1)
    assert np.corrcoef(own.scores, plain.scores)[0, 1] < 0.999
