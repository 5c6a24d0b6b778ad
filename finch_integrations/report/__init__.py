"""Pictures of what a compression kept, and why."""

from finch_integrations.report.attention import question_attention
from finch_integrations.report.report import Report, make_report

__all__ = ["Report", "make_report", "question_attention"]
