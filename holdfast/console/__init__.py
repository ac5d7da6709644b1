"""The console: the `holdfast` command and the control API behind it, which show what every session does and why.

These modules import the runtime only where they run it: `--help` and the inspection commands start without it.
"""
