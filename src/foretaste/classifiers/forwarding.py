"""What classifiers that ask another one have in common."""

from __future__ import annotations

from foretaste.classifiers.classifier import Classifier
from foretaste.classifiers.preprocessing import Preprocesses, Preprocessing
from foretaste.errors import UsageError


class Forwarding:
    """States of a model what the classifier that it asks states.

    Args:
        classifier: what to ask.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The K class names if the model states them, or None."""
        return self._classifier.classes

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """``(H, W, C)`` of the images it takes if the model states it, or None."""
        return self._classifier.sample_shape

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What is done to the pixels before the model gets them; None if nothing is."""
        return self._classifier.preprocessing if isinstance(self._classifier, Preprocesses) else None

    def preprocessed(self, preprocessing: Preprocessing) -> Classifier:
        """Return the model itself with other preprocessing.

        Raises:
            UsageError: it takes pixels as they are.
        """
        if not isinstance(self._classifier, Preprocesses):
            raise UsageError("this model takes pixels as they are")
        return self._classifier.preprocessed(preprocessing)
