"""Pure, synchronous decisions: time and random numbers are arguments. No module here awaits, reads a clock or does I/O."""

from holdfast.policies.breaker import Breaker, BreakerSpec
from holdfast.policies.budget import ZERO, Budget, Left, Usage
from holdfast.policies.classify import Fault, classify
from holdfast.policies.failures import Category, FailureRule
from holdfast.policies.gate import GO, Go, Verdict, Wait
from holdfast.policies.ledger import Ledger
from holdfast.policies.repetition import Repetition, RepetitionSpec
from holdfast.policies.retry import NO_RETRY, Retry, delay

__all__ = [
    "GO",
    "NO_RETRY",
    "ZERO",
    "Breaker",
    "BreakerSpec",
    "Budget",
    "Category",
    "FailureRule",
    "Fault",
    "Go",
    "Ledger",
    "Left",
    "Repetition",
    "RepetitionSpec",
    "Retry",
    "Usage",
    "Verdict",
    "Wait",
    "classify",
    "delay",
]
