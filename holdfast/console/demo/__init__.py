"""`holdfast demo`: sessions that survive the death of their process."""
