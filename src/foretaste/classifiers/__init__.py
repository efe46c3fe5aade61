"""Classifiers as a guard sees them: images in, labels or scores out."""
