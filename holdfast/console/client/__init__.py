"""A running process from outside: `connect`, and the same `Handle` as inside it."""
