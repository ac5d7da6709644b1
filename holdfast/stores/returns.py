"""Budget between parents and children: what a child is given, what it returns, and what a session and those below it cost.

A session's `usage` is what counts against its limits: what it cost itself, and what it gave to children and did not get back. Unspent
budget of an ended session goes to the parent, and past each parent that has ended to the first that lives. Sessions of a tree end in any
order, also at once. So the store decides at the write where an amount goes, the same way in each store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from holdfast.policies.budget import ZERO, Budget, Usage, share_of
from holdfast.stores.ops import CreateSession, Result, ReturnBudget, Status
from holdfast.stores.records import Returns, Session

_replace = msgspec.structs.replace
_NONE = Returns()


class Account(msgspec.Struct, frozen=True, gc=False):
    """What a session's row says of its costs. `depth`: how far it is below the first of its family; `parent` is "" for that one."""

    id: str
    parent: str
    depth: int
    budget: Budget
    usage: Usage
    returns: Returns

    @property
    def held(self) -> Usage:
        """What its parent's `usage` holds for it: its share, less what it returned."""
        share = share_of(self.budget) if self.returns.share is None else self.returns.share
        return share - self.returns.due()


class Sums(msgspec.Struct, frozen=True, gc=False):
    """The cost of a session: its `own`, and in `total` also that of all sessions below it that are not detached."""

    own: Usage
    total: Usage


def sums(family: Sequence[Account], open_turns: Mapping[str, Usage]) -> dict[str, Sums]:
    """The sums of each session of a family: `total` is `own` and the `total` of each child.

    Args:
        family: a session and all below it that are not detached.
        open_turns: the cost of the open turns, by session.
    """
    own = {each.id: each.usage + open_turns.get(each.id, ZERO) for each in family}
    for each in family:
        if each.parent in own:
            own[each.parent] = own[each.parent] - each.held
    own = {id: usage.clamp() for id, usage in own.items()}  # two reads of a session that runs may differ by a step
    total = dict(own)
    for each in sorted(family, key=lambda each: -each.depth):
        if each.parent in total:
            total[each.parent] = total[each.parent] + total[each.id]
    return {id: Sums(own[id], total[id]) for id in own}


def opened(op: CreateSession) -> Returns:
    """The account of a new session."""
    return _NONE if op.parent is None or op.detached else Returns(share=share_of(op.budget))


def settle(op: ReturnBudget, find: Callable[[str], Session | None], put: Callable[[Session], None]) -> Result:
    """Settle the account of a session that has ended; `find` reads a row, `put` writes `usage` and `returns` of one."""
    credited: list[tuple[str, Usage]] = []
    child = find(op.child)
    if child is None:
        return Result(Status.DONE, ())
    settled = _replace(child, returns=_replace(child.returns, left=op.left))
    put(settled)
    amount = (settled.returns.due() - child.returns.due()).clamp()
    above, passed = op.session, {op.child}
    while amount and above not in passed and (parent := find(above)) is not None:
        passed.add(above)
        returns = _replace(parent.returns, back=parent.returns.back + amount)
        put(_replace(parent, usage=parent.usage - amount, returns=returns))
        credited.append((above, amount))
        amount = (returns.due() - parent.returns.due()).clamp()  # zero while it lives
        if parent.parent is None or parent.detached:
            break
        above = parent.parent.session
    return Result(Status.DONE, tuple(credited))
