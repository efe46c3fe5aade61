"""Guards screen the inputs of a classifier that can only be asked."""
