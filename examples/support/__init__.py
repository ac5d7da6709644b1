"""A support desk: fifty customers talk to one agent that looks up orders, leaves notes on them and pays money back.

Read `app.py` first, then `tools.py`. The other modules simulate the world around them: `shop.py` and `bank.py` are other companies'
services, `customers.py` the customers, `model_server.py` and `script.py` the model provider. `make demo` runs all of them, and kills the
process.
"""
