"""What cleansers share that judge a set by a classifier trained on it."""
