"""Unspent budget of an ended session: it goes to the parent, and past each parent that has ended to the first that lives.

Sessions of a tree end in any order, also at once. So the store decides at the write where an amount goes, the same way in each store.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast.policies.budget import Usage
from holdfast.stores.ops import Result, ReturnBudget, Status
from holdfast.stores.records import Session

_replace = msgspec.structs.replace


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
