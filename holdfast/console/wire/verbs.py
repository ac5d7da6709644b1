"""The verbs of a person that take no more than a reason, as the API's document and the command line's help both describe them."""

from __future__ import annotations

SIMPLE = {
    "pause": "Stop handling messages once no step is in flight, until `resume`.",
    "resume": "Run a parked session again.",
    "cancel": "End a session; its children end first.",
    "kill": "End a session that misbehaves.",
    "retry": "Handle the dead letter of a failed session again, from the same journal: no recorded effect is made again.",
    "drop": "Give up the dead letter of a failed session; its next turn reads which effects were done.",
}
