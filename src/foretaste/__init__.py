"""Keep backdoors out of image classifiers."""
