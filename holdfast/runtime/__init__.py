"""Sessions: agents, turns, steps, the journal, and the Runtime that runs them."""
