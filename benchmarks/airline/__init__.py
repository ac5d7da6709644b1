"""A hundred recorded conversations of an airline's service desk, run again through holdfast while the process is killed.

Read `app.py` first, then `tools.py`. Around them: `tables.py`, `reads.py` and `writes.py` are the airline's own system, `world.py` and
`ledger.py` keep each session's writes to it, outside of holdfast; `recordings.py` is what was recorded, `model_server.py` says what the
recorded assistant said, `feed.py` what the users said; `run.py` drives all of it and `report.py` counts.
"""
