"""A support desk: fifty customers talk to one agent that looks up orders, leaves notes on them and pays money back.

Read `app.py` first, then `tools.py`. The rest stands for the world around them: `shop.py` and `bank.py` are other people's services,
`customers.py` the people who write, `model_server.py` and `script.py` the model provider. `make demo` runs all of it, and kills it.
"""
