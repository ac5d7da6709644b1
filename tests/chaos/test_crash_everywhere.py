"""A ten-step turn with every class of effect, killed at every point in virtual time, and again while it recovers."""

from __future__ import annotations

import random

import pytest

from holdfast import events
from holdfast.testing import Crashed, Simulation, simulate
from tests.chaos.scripts import SHAPED
from tests.chaos.shapes import Script
from tests.chaos.world import Delivery, World, at_once

TEN: Script = [
    ["look", "look-1"],
    ["answer", "answer-1"],
    ["note", "note-1"],
    ["refund", "refund-1"],
    ["sleep", "sleep-1", 60.0],
    ["tell", "tell-1", "clerk", [["note", "note-2"]]],
    ["ask", "ask-1", "clerk", [["look", "look-2"], ["answer", "answer-2"]]],
    ["child", "child-1", [["note", "note-3"], ["answer", "answer-3"]]],
    ["charge", "charge-1"],
    ["chance", "chance-1"],
]
SCRIPTS: dict[str, Script] = {"sequential": TEN, "gathered": [["gather", "gather-1", TEN]]}
# Workers park after 5 s: the answers come in while whoever asked is being parked.
PARKING: Script = [
    ["ask", "ask-1", "clerk", [["sleep", "sleep-1", 5.0], ["answer", "answer-1"]]],
    ["refund", "refund-1"],
    ["child", "child-1", [["sleep", "sleep-2", 4.99], ["note", "note-1"]]],
    ["gather", "gather-1", [["ask", "ask-2", "clerk", [["sleep", "sleep-3", 5.0]]], ["sleep", "sleep-4", 5.0], ["charge", "charge-1"]]],
]
SEEDS = [None, 1]


def deliveries(script: Script) -> list[Delivery]:
    """The long turn between two short ones, and a session that it talks to."""
    return [
        Delivery("clerk", "before", [["look", "look-0"]]),
        Delivery("worker", "long", script),
        Delivery("worker", "after", [["note", "note-9"]]),
    ]


def live(world: World, sent: list[Delivery], seed: int | None, start_s: float = 0.0, crash_at: int | None = None) -> Crashed | None:
    """One life: `Crashed`, or None where it got everything done."""
    life = simulate(lambda s: world.serve(s, sent), seed=seed, start_s=start_s, crash_at=crash_at, max_points=20_000)
    assert isinstance(life, Crashed) or life
    return life if isinstance(life, Crashed) else None


def recover(world: World, sent: list[Delivery], seed: int | None, start_s: float) -> None:
    """The last life; every doubt that it finds is settled in it, by `reconcile` where there is one, else by a person."""
    doubts, before, parked_before = world.dies(), len(world.seen), world.parked("doubt")
    assert live(world, sent, seed, start_s) is None
    world.disk.crash()
    seen = world.seen[before:]
    settled = [(event.name, event.by) for event in seen if isinstance(event, events.DoubtSettled)]
    assert sorted(settled) == sorted((name, {"refund": "reconcile", "charge": "person"}[name]) for name in doubts)
    # Whoever parked in a life before this one did so on the disk, whether or not the event was still told of.
    parked = parked_before + sum(isinstance(event, events.SessionParked) and event.reason == "doubt" for event in seen)
    assert parked >= doubts.count("charge")
    at_once(world.check(sent))


def strides(quick: int) -> pytest.MarkDecorator:
    """Every point of a script where there is time for it; else some of them are left out, others for each script."""
    return pytest.mark.parametrize("stride", [quick, pytest.param(1, marks=pytest.mark.slow)])


@strides(5)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", SCRIPTS)
def test_a_crash_at_every_point_of_a_turn_loses_nothing_and_repeats_nothing(shape: str, seed: int | None, stride: int) -> None:
    """Whatever instant the process dies at, its next life ends where an undisturbed one does, each effect done once."""
    sent = deliveries(SCRIPTS[shape])
    crash_at, doubted = list(SCRIPTS).index(shape) % stride, 0
    while True:
        world = World()
        life = live(world, sent, seed, crash_at=crash_at)
        if life is None:
            break
        recover(world, sent, seed, life.time_s)
        doubted += any(isinstance(event, events.DoubtSettled) for event in world.seen)
        crash_at += stride
    world.disk.crash()
    at_once(world.check(sent))
    assert crash_at > 200
    assert doubted >= 8 // stride, "some of the crashes fell into a `once` effect"


@strides(7)
@pytest.mark.parametrize("shape", SHAPED)
def test_a_crash_at_every_point_of_a_handler_that_strangers_wrote_changes_nothing(shape: str, stride: int) -> None:
    """Tasks, groups, steps in steps, timeouts of its own, loops: the way that it went is the way that it goes, each effect done once."""
    sent = [Delivery("worker", "long", SHAPED[shape]), Delivery("worker", "after", [["note", "note-9"]])]
    crash_at = first = list(SHAPED).index(shape) % stride
    while True:
        world = World()
        life = live(world, sent, 1, crash_at=crash_at)
        if life is not None:
            world.disk.crash()
            # The tasks run in another order than before.
            assert live(world, sent, crash_at if crash_at % 2 else None, life.time_s) is None
        world.disk.crash()
        try:
            at_once(world.check(sent))
        except AssertionError as error:
            error.add_note(f"killed at point {crash_at}")
            raise
        if life is None:
            break
        crash_at += stride
    assert crash_at - first > 50


@strides(5)
@pytest.mark.parametrize("seed", [0, 1])
def test_an_answer_that_comes_while_its_asker_is_parked_wakes_it(seed: int, stride: int) -> None:
    """In whatever order the two are written, and wherever the process dies between: nobody waits for what is there."""
    sent, crash_at = deliveries(PARKING), seed
    while True:
        world = World()
        life = live(world, sent, seed, crash_at=crash_at)
        if life is None:
            break
        recover(world, sent, seed, life.time_s)
        crash_at += stride


@pytest.mark.parametrize("shape", SCRIPTS)
def test_a_crash_during_the_recovery_from_a_crash_changes_nothing(shape: str) -> None:
    """What recovery itself does (reconciling doubts, dropping failures, sending again) can be cut off anywhere too."""
    sent, draw = deliveries(SCRIPTS[shape]), random.Random(shape)
    for seed in range(100):
        world, now_s, lives = World(), 0.0, 0
        while lives < 3:
            life = live(world, sent, seed, now_s, crash_at=draw.randrange(360 // (1 + lives)))
            if life is None:
                break
            world.disk.crash()
            now_s, lives = life.time_s, lives + 1
        recover(world, sent, seed, now_s)


def test_the_same_seed_runs_the_same_trace() -> None:
    """A failure under a seed can be run again: not one point differs."""
    for seed in (1, 2, 3):
        digests = set()
        for _ in range(2):
            world, simulation = World(), Simulation(seed=seed)
            simulation.run(lambda s, world=world: world.serve(s, deliveries(TEN)))  # type: ignore[misc]
            digests.add(simulation.digest())
        assert len(digests) == 1
