"""The invisible sample-specific attack: an encoder hides a string in each image."""

from foretaste.attacks.issba.issba import ISSBA

__all__ = ["ISSBA"]
