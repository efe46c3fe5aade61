"""The review page: what is happening, the triggers, and the inputs that a person should look at."""
