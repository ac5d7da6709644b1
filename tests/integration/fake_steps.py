"""What model calls need of a runtime, without one: a step pipeline that keeps records in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from holdfast.calls import ModelClient, Prices, cost_of
from holdfast.calls.call import Call, StepContext
from holdfast.errors import StepError
from holdfast.policies.budget import ZERO, Usage
from holdfast.policies.classify import answers, classify, refused
from holdfast.policies.retry import delay


class FakeSteps:
    """A step pipeline without a store: runs a call as the real one does, without waiting, and keeps its record."""

    def __init__(self, records: dict[tuple[str, bytes], bytes] | None = None) -> None:
        self.records = {} if records is None else records
        self.calls: list[Call] = []
        self.used: list[Usage] = []
        self.faults: list[str] = []
        self.waits: list[float | None] = []
        self.branches: list[asyncio.Task[Any]] = []

    async def run(self, call: Call) -> Any:
        self.calls.append(call)
        record = self.records.get((call.name, call.args))
        if record is not None:
            return call.codec.decode(record)
        attempt = 0
        while True:
            attempt += 1
            context, value = StepContext("s-1", "key-1", attempt), None
            try:
                value = await call.run(context)
                if call.check is not None:
                    call.check(value)
            except Exception as error:
                fault = classify(error, 0.0)
                self.faults.append(fault.type)
                self.used.append(self._cost(call, value, error))
                most = answers(fault, (call.failures,), call.retry.attempts).attempts or 1
                after_s = fault.retry_after_s
                wait = None if context.settled else delay(call.retry, most, attempt, 0.0, after_s, lambda low, high: low)
                if wait is None:
                    raise StepError(call.name, fault.type, fault.message, answers(fault, (), 1).category, kind=fault.kind) from error
                self.waits.append(wait)
                continue
            data, result = call.codec.round_trip(value)
            self.records[call.name, call.args] = data
            self.used.append(call.meter(result) if call.meter else call.most)
            return result

    def _cost(self, call: Call, value: Any, error: Exception) -> Usage:
        if value is not None and call.meter is not None:
            return call.meter(value)
        return cost_of(error) or (Usage(steps=1) if refused(error) else call.most)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self.branches.append(task)
        return task

    @property
    def total(self) -> Usage:
        return sum(self.used, ZERO)


def models(
    client: Any, steps: FakeSteps, *, name: str = "openai", prices: Prices | None = None, cap_tokens: bool = False, cap_money: bool = False
) -> Any:
    """What a handler gets for `client`."""
    return ModelClient(name, client, prices=prices).proxy(steps, cap_tokens=cap_tokens, cap_money=cap_money)
