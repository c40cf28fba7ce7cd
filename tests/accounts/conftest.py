"""Fixtures of other rooms that limits are tested with: the operators' office, and a till with budgets."""

from tests.admin.conftest import office
from tests.ledger.conftest import till

__all__ = ["office", "till"]
