"""A hundred recorded conversations of an airline's service desk, run again through holdfast while the process is killed.

Read `app.py` first, then `tools.py`. Around them: `tables.py`, `reads.py` and `writes.py` are the airline's own system, `world.py` and
`ledger.py` keep each session's writes to it, outside of holdfast; `recordings.py` reads the recordings, `model_server.py` sends the
recorded assistant's messages, `feed.py` the users'; `run.py` drives the run and `report.py` counts.
"""
