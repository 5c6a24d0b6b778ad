"""A picture of what a compression kept."""

from finch_integrations.report.report import Report, make_report

__all__ = ["Report", "make_report"]
