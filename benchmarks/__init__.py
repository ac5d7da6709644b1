"""The cost of holdfast, each figure next to the raw limit of the same machine in the same run. See README.md."""
