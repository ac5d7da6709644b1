"""The verbs of a person, as both the API's document and the help of the command line describe them."""

from __future__ import annotations

SIMPLE = {
    "pause": "Stop handling messages once no step is in flight, until `resume`.",
    "resume": "Run a parked session again.",
    "cancel": "End a session; its children end first.",
    "kill": "End a session that misbehaves.",
    "retry": "Handle the dead letter of a failed session again, from the same journal: no recorded effect is made again.",
}
"""The verbs with a reason only."""

MORE = {
    "drop": (
        "Give up the open turn of a session that failed, is parked or is running. The state is that of the last commit; the next turn "
        "reads which effects were done. While the outcome of an effect is unknown, the message stays a dead letter: resolve it first."
    ),
    "interrupt": (
        "End the attempts that are in flight now, as their timeouts would: a read is retried or fails, the outcome of a once effect is "
        "unknown."
    ),
}
"""The verbs with more arguments."""

HELP = SIMPLE | MORE
