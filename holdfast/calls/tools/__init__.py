"""Functions as calls: their definition, their schema for a model, the threads in which plain ones run, and their results."""
