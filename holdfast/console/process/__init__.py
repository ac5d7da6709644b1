"""`holdfast run`: a Runtime as a long-lived process."""
