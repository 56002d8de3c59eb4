"""The messages between services: what they say and who receives them."""
