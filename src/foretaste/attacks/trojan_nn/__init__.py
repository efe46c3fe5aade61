"""The trojaning attack on a trained network."""

from foretaste.attacks.trojan_nn.trojan_nn import TrojanNN

__all__ = ["TrojanNN"]
