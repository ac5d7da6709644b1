"""The console: the `holdfast` command, and what it needs to show what every session is doing and why.

Modules here import the runtime only where they run it: `--help` and the inspection commands start without it.
"""
