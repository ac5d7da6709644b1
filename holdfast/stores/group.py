"""Group commit: the waiting ops of all sessions go to the store in one transaction.

One batch is under way at a time; ops that arrive meanwhile form the next one. A caller that is cancelled does not withdraw its op: the op
is applied and its `applied` callback runs without a waiter. The callbacks of a batch run with no await between the acknowledgement and the
last of them, so memory never shows half a batch.

Where the store fails for a transient reason (a full disk, a server that restarts), ops submitted with `keep` are not lost: each holds an
outcome that the session cannot get again. They stay at the head of the queue and are written again after a growing pause. Later ops stay
behind them.

One op harms only itself. An op that no store can hold is refused before it is queued. Where the store refuses a batch because of an op in
it, the batch is written in halves, and these in halves again, until that op is alone: it is refused, and all others are written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from holdfast.errors import NotWritten, OutcomeUnknown, StoreError, StoreLost, WriteRefused
from holdfast.events import log
from holdfast.stores.limits import fault_of
from holdfast.stores.ops import Op, Result, concerns
from holdfast.stores.protocol import Checked, Store

OVERLAP = 64
"""From this many waiting ops, two batches are faster than one, where the store overlaps with the sessions."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
"""The pause before the writer writes its kept ops again, in seconds; it doubles at each failure."""

Applied = Callable[[Result], None]
_Entry = tuple[Op, asyncio.Future[Result], Applied | None, bool]


class GroupCommit:
    """The one writer of a store. `run` is its loop; a supervisor runs it as a child.

    Args:
        store: an open store.
        max_batch: most ops in one transaction; more wait for the next one. It is large: a second batch, under way while the loop runs the
            waiters of the first, competes with the loop for the interpreter lock at every row.
        deadline_s: how long one transaction may take, in seconds; after it, its outcome counts as unknown.
        fatal: called when two transactions in a row pass their deadline. Reads wait behind them, no safe action is left, and the process
            should exit.
        unknown: called with the ops of a batch that may or may not have been applied, so that the sessions they concern read again.

    Attributes:
        batches, ops: how many were written.
        healthy: whether the last write succeeded.
        kept: how many ops wait to be written again, or are being written again.
        lost: why the store can never be written again; None while it can.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_batch: int = 8192,
        deadline_s: float = 30.0,
        fatal: Callable[[str], None] | None = None,
        unknown: Callable[[Sequence[Op]], None] | None = None,
    ) -> None:
        self.store = store
        self.max_batch = max_batch
        self.deadline_s = deadline_s
        self.batches = 0
        self.ops = 0
        self.healthy = True
        self.kept = 0
        self._pause_s = 0.0
        self._late = False
        self.lost: StoreLost | None = None
        self._fatal, self._unknown = fatal, unknown
        self._queue: list[_Entry] = []
        self._under_way: list[_Entry] = []
        self._parts: list[int] = []  # sizes of the batches to come, where a batch has an op at fault
        self._wake: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._checked = store if isinstance(store, Checked) else None
        self._check_due = False
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, op: Op, applied: Applied | None = None, *, keep: bool = False) -> asyncio.Future[Result]:
        """Queue `op` for the next batch; the future has its result.

        `applied` runs when the batch is acknowledged, before any of the batch's futures is resolved. The future raises NotWritten
        (WriteRefused where the op itself is at fault, StoreLost where the store can never be written again) or OutcomeUnknown. Cancelling
        the future does not withdraw the op.

        With `keep`, the future stays pending over a transient NotWritten: the op is tried until it is written, its outcome is unknown, or
        the writer stops.
        """
        loop = self._loop or asyncio.get_running_loop()
        self._loop = loop
        future: asyncio.Future[Result] = asyncio.Future(loop=loop)
        if self._closed:
            # Not raised here: timers and callbacks submit too, and a supervisor may start the writer again in a moment.
            self._fail([(op, future, applied, keep)], self.lost or NotWritten("the store's writer is not running: nothing was written"))
            return future
        why = fault_of(op)
        if why:
            self._refuse((op, future, applied, keep), WriteRefused(f"nothing was written: {why}"))
            return future
        self._queue.append((op, future, applied, keep))
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)
        return future

    async def run(self) -> None:
        """Write batches until cancelled. Ops that are queued or kept then are never written: `flush` first.

        Raises:
            StoreLost: the process lost ownership of the store; at once, where an earlier run found that.
        """
        if self.lost is not None:
            raise StoreLost(*self.lost.args)
        self._closed = self._check_due = False
        self._check_later()
        try:
            while True:
                if self._check_due:
                    await self._check()
                idle = not self._queue
                if idle:
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
                    self._wake = None
                elif self.kept and self._pause_s:
                    await asyncio.sleep(self._pause_s)
                if self._parts:
                    await self._write_one(self._parts.pop())
                    continue
                # After a pause all sessions are in step: half of them go first, so that the others run while the store works.
                waiting = len(self._queue)
                halved = idle and self.store.overlaps and waiting >= OVERLAP
                await self._write_one((waiting + 1) // 2 if halved else self.max_batch)
        except asyncio.CancelledError:
            self._refuse_queued(NotWritten("the runtime stopped: nothing was written"))
            raise
        except StoreLost as error:
            self.lost = error
            log.critical("the store is lost: %s", error)
            self._refuse_queued(error)
            raise
        finally:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()

    def _check_later(self) -> None:
        if self._checked is not None:
            self._timer = asyncio.get_running_loop().call_later(self._checked.check_s, self._check_now)

    def _check_now(self) -> None:
        """Have the writer look at the store before its next batch, or now where it has none."""
        self._check_due = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _check(self) -> None:
        self._check_due = False
        assert self._checked is not None
        try:
            async with asyncio.timeout(self.deadline_s):
                await self._checked.check()
        except StoreLost:
            raise
        except (StoreError, TimeoutError) as error:
            self.healthy = False
            log.warning("the store cannot be checked: %s", str(error) or f"no answer within {self.deadline_s:g} s")
        self._check_later()

    async def flush(self, deadline_s: float | None = None) -> None:
        """Wait until each op submitted before is written or has failed; `deadline_s` at most, in seconds.

        Ops kept for a failing store may still be unwritten when the deadline passes: see `kept`. Without a deadline, flush waits for them.
        """
        waiting = [future for _, future, *_ in (*self._under_way, *self._queue)]
        if waiting and not self._closed:
            await asyncio.wait(waiting, timeout=deadline_s)

    async def _write_one(self, limit: int) -> None:
        batch, self._queue = self._queue[:limit], self._queue[limit:]
        if not batch:
            return
        self._under_way = batch
        again = min(self.kept, len(batch))  # kept ops are at the head
        try:
            results = await self._apply([op for op, *_ in batch])
        except WriteRefused as error:
            if len(batch) == 1:
                self._refuse(batch[0], error)
                return
            self._queue[:0] = batch
            self.kept += again
            self._parts += [len(batch) - len(batch) // 2, len(batch) // 2]
            return
        except StoreError as error:
            self.healthy = False
            self._parts.clear()  # the head of the queue changes
            self._fail(self._keep(batch, error), error)
            if isinstance(error, StoreLost):
                raise
            if isinstance(error, OutcomeUnknown):
                self._refuse_what_follows(batch)
                if self._unknown is not None:
                    self._unknown([op for op, *_ in batch])
            return
        except asyncio.CancelledError:
            self._fail(batch, OutcomeUnknown("the write was cut off: read again"))
            raise
        except BaseException as error:
            # A fault of the store itself: this writer crashes, and its supervisor restarts it. No waiter may wait for ever meanwhile.
            self.healthy = False
            self._parts.clear()
            self._fail(batch, OutcomeUnknown(f"the store failed ({type(error).__name__}): read again"))
            if self._unknown is not None:
                self._unknown([op for op, *_ in batch])
            raise
        finally:
            self._under_way = []
            self.kept -= again
        self._recovered()
        self.batches += 1
        self.ops += len(batch)
        # Waiters run after this loop, so none of them sees half a batch.
        for (op, future, applied, _), result in zip(batch, results, strict=False):
            if applied is not None:
                try:
                    applied(result)
                except Exception as error:
                    # A fault in one session's callback must not stop the callbacks of the others: that session reads again.
                    log.exception("a fault in applying %s", type(op).__name__)
                    self._fail(
                        [(op, future, None, False)], OutcomeUnknown(f"memory is behind the store ({type(error).__name__}): read again")
                    )
            if not future.done():
                future.set_result(result)

    async def _apply(self, ops: list[Op]) -> list[Result]:
        """The store's apply, under one deadline for the whole batch."""
        try:
            async with asyncio.timeout(self.deadline_s) as limit:
                results = await self.store.apply(ops)
        except TimeoutError as error:
            if not limit.expired():
                raise OutcomeUnknown(f"the store failed ({str(error) or 'TimeoutError'}): read again") from error
            if self._late and self._fatal is not None:
                self._fatal(f"the store has not answered for twice {self.deadline_s:g} s")
            self._late = True
            raise OutcomeUnknown(f"a transaction took longer than {self.deadline_s:g} s: read again") from None
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The writer was not cancelled: the store awaited a cancelled task, such as that of a connection.
            raise RuntimeError("the store's apply was cancelled from within") from error
        self._late = False
        if len(results) != len(ops):
            raise RuntimeError(f"{type(self.store).__name__}.apply returned {len(results)} results for {len(ops)} ops: return one for each")
        return results

    def _refuse_what_follows(self, batch: list[_Entry]) -> None:
        """Refuse the later ops of sessions that have an op of unknown outcome: a later write must not exist without the earlier one."""
        unsure = {id for op, *_ in batch for id in concerns(op)}
        later, others = list[_Entry](), list[_Entry]()
        for entry in self._queue:
            (later if hasattr(entry[0], "epoch") and unsure.intersection(concerns(entry[0])) else others).append(entry)
        if later:
            self._queue = others
            self._fail(later, NotWritten("the outcome of an earlier write of the session is unknown: nothing was written"))

    def _keep(self, batch: list[_Entry], error: StoreError) -> list[_Entry]:
        """Put the ops to write again back into the queue after a failed batch; returns those that fail now."""
        if not isinstance(error, NotWritten) or not error.passing:
            return batch
        kept = [entry for entry in batch if entry[3]]
        if not kept:
            return batch
        self._queue[:0] = kept
        self.kept += len(kept)
        if not self._pause_s:
            log.warning("the store failed: %s; %d writes are kept in memory and written again", error, len(kept))
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        return [entry for entry in batch if not entry[3]]

    def _recovered(self) -> None:
        self.healthy = True
        if self._pause_s:
            log.info("the store accepts writes again")
            self._pause_s = 0.0

    def _refuse_queued(self, error: StoreError) -> None:
        queue, self._queue = self._queue, []
        self.kept, self._pause_s = 0, 0.0
        self._parts.clear()
        self._fail(queue, error)

    def _refuse(self, entry: _Entry, error: WriteRefused) -> None:
        """Refuse an op that is at fault itself."""
        op = entry[0]
        log.error("a write of %s was refused, and it alone (%s): %s", ", ".join(concerns(op)) or "the runtime", type(op).__name__, error)
        self._fail([entry], error)

    @staticmethod
    def _fail(batch: list[_Entry], error: StoreError) -> None:
        for _, future, *_ in batch:
            if not future.done():
                future.set_exception(type(error)(*error.args))
                future.exception()  # a waiter that is gone must not make the loop complain
