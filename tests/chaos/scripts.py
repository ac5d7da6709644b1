"""Handlers as strangers write them, as scripts: each has a name, for the tests that kill, pause and drain it everywhere."""

from __future__ import annotations

from tests.chaos.shapes import AT_ONCE, Script

EACH: Script = [["note", "note-1"], ["refund", "refund-1"], ["answer", "answer-1"], ["look", "look-1"]]
SHAPED: dict[str, Script] = {
    **{shape: [[shape, "shape-1", EACH], ["charge", "charge-1"]] for shape in AT_ONCE},
    "nested": [
        ["nested", "nested-1", [["refund", "refund-1"], ["agather", "agather-1", [["note", "note-1"], ["answer", "answer-1"]]]]],
        ["refund", "refund-2"],
        ["gather", "gather-1", [["nested", "nested-2", [["chance", "chance-1"], ["note", "note-2"]]], ["chance", "chance-2"]]],
    ],
    "in time": [
        ["hurry", "hurry-1", 600.0, ["refund", "refund-1"], ["note", "note-1"]],
        ["agather", "agather-1", [["hurry", "hurry-2", 600.0, ["answer", "answer-1"], ["note", "note-2"]], ["note", "note-3"]]],
        ["hurry", "hurry-3", 600.0, ["gather", "gather-1", [["note", "note-4"], ["refund", "refund-2"]]], ["note", "note-5"]],
        ["cancelled", "cancelled-1", 1.0, ["note", "note-6"]],
        ["again", "again-1", 2, 600.0, ["charge", "charge-1"]],
    ],
    "too late": [
        ["hurry", "hurry-1", 1.0, ["slow_answer", "answer-1"], ["refund", "refund-1"]],
        ["hurry", "hurry-2", 1.0, ["slow_note", "note-1"], ["answer", "answer-2"]],
        ["hurry", "hurry-3", 1.0, ["slow_look", "look-1"], ["note", "note-2"]],
        ["hurry", "hurry-4", 1.0, ["agather", "agather-1", [["slow_answer", "answer-3"], ["note", "note-3"]]], ["note", "note-4"]],
        ["cancelled", "cancelled-1", 1.0, ["slow_answer", "answer-4"]],
    ],
    "too late for a refund": [["hurry", "hurry-1", 1.0, ["slow_refund", "refund-1"], ["answer", "answer-1"]], ["note", "note-1"]],
    "too late for a charge": [["hurry", "hurry-1", 1.0, ["slow_charge", "charge-1"], ["answer", "answer-1"]], ["note", "note-1"]],
    "a refund cancelled": [["cancelled", "cancelled-1", 1.0, ["slow_refund", "refund-1"]], ["note", "note-1"]],
    "a refund again": [["again", "again-1", 2, 1.0, ["slow_refund", "refund-1"]], ["note", "note-1"]],
    "a charge again": [["again", "again-1", 2, 1.0, ["slow_charge", "charge-1"]], ["note", "note-1"]],
    "a charge again beside others": [
        [
            "agather",
            "agather-1",
            [
                ["again", "again-1", 1, 1.0, ["slow_charge", "charge-1"]],
                ["then", "then-1", [["slow_note", "note-1"], ["refund", "refund-1"], ["sleep", "sleep-1", 60.0], ["answer", "answer-1"]]],
                ["nested", "nested-1", [["slow_answer", "answer-2"], ["slow_note", "note-2"]]],
                ["finally", "finally-1", ["slow_note", "note-3"], ["note", "note-4"]],
            ],
        ],
        ["note", "note-5"],
    ],
    "others again": [["again", "again-1", 2, 1.0, ["slow_answer", "answer-1"]], ["again", "again-2", 2, 1.0, ["slow_note", "note-1"]]],
    "a gather hurried over a refund": [
        ["hurry", "hurry-1", 1.0, ["gather", "gather-1", [["slow_refund", "refund-1"], ["note", "note-1"]]], ["answer", "answer-1"]],
        ["note", "note-2"],
    ],
    "tasks with waits": [
        ["task", "task-1", [["sleep", "sleep-1", 60.0], ["refund", "refund-1"], ["sleep", "sleep-2", 4.0], ["answer", "answer-1"]]],
        ["anyio", "anyio-1", [["child", "child-1", [["note", "note-1"]]], ["again", "again-1", 2, 600.0, ["note", "note-2"]]]],
    ],
    "alike": [
        ["completed", "completed-1", [["answer", "answer-1"], ["answer", "answer-2"], ["refund", "refund-1"], ["refund", "refund-2"]]],
        ["group", "group-1", [["slow_answer", "answer-3"], ["slow_answer", "answer-4"], ["note", "note-1"], ["note", "note-2"]]],
    ],
    "fails in a group": [
        ["note", "note-1"],
        ["group", "group-1", [["stumble", "stumble-1", 1], ["slow_refund", "refund-1"], ["slow_answer", "answer-1"], ["note", "note-2"]]],
        ["agather", "agather-1", [["stumble", "stumble-2", 1], ["slow_refund", "refund-2"], ["then", "then-1", [["slow_note", "note-3"]]]]],
    ],
    "cut by a bug beside it": [
        [
            "group",
            "group-1",
            [["slow_answer", "answer-1"], ["slow_note", "note-1"], ["then", "then-1", [["note", "note-2"], ["stumble", "stumble-1", 1]]]],
        ],
        ["gather", "gather-1", [["anyio", "anyio-1", [["stumble", "stumble-2", 1], ["answer", "answer-2"], ["refund", "refund-1"]]]]],
    ],
    "a task that nobody awaits": [
        ["note", "note-1"],
        ["task", "task-1", [["slow_refund", "refund-1"], ["slow_answer", "answer-1"], ["note", "note-2"], ["stumble", "stumble-1", 1]]],
    ],
    "gathers in tasks": [
        [
            "agather",
            "agather-1",
            [
                ["then", "then-1", [["slow_note", "note-1"], ["gather", "gather-1", [["refund", "refund-1"]]]]],
                ["then", "then-2", [["gather", "gather-2", [["refund", "refund-2"]]], ["slow_answer", "answer-1"]]],
            ],
        ],
        ["note", "note-2"],
    ],
    "uuids in tasks": [
        [
            "agather",
            "agather-1",
            [
                ["then", "then-1", [["slow_note", "note-1"], ["chance", "chance-1"]]],
                ["then", "then-2", [["chance", "chance-2"], ["slow_answer", "answer-1"]]],
            ],
        ],
        ["note", "note-2"],
    ],
    "finally": [
        ["finally", "finally-1", ["answer", "answer-1"], ["note", "note-1"]],
        ["finally", "finally-2", ["sleep", "sleep-1", 60.0], ["refund", "refund-1"]],
        ["finally", "finally-3", ["hurry", "hurry-1", 1.0, ["slow_answer", "answer-2"], ["note", "note-2"]], ["charge", "charge-1"]],
        ["group", "group-1", [["finally", "finally-4", ["refund", "refund-2"], ["note", "note-3"]], ["look", "look-1"]]],
    ],
    "retried": [
        ["retry", "retry-1", 2, ["refund", "refund-1"]],
        ["completed", "completed-1", [["retry", "retry-2", 2, ["answer", "answer-1"]], ["retry", "retry-3", 2, ["note", "note-1"]]]],
    ],
}  # fmt: skip
"""What strangers write. No two `once` effects without a reconcile stand beside each other: nothing tells them apart in doubt."""
