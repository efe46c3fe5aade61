"""What the gateway writes down: each verdict before it is sent, the triggers, and what people decided."""
