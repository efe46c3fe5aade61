"""What attacks share: the protocol, poisoning, trained parts, pictures and pixels."""
