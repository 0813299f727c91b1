"""Receipts (SuperContext, Yang et al. 2024): what a small supervised model says, shown to the large one."""

from forgetmenot.receipts.issue import (
    Receipt,
    Receipts,
    classifier_maker,
    issue_receipts,
    receipted,
    takes_receipts,
)
from forgetmenot.receipts.settings import TFIDF, ReceiptSettings

__all__ = [
    "TFIDF",
    "Receipt",
    "ReceiptSettings",
    "Receipts",
    "classifier_maker",
    "issue_receipts",
    "receipted",
    "takes_receipts",
]
