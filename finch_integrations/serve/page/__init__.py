"""The page at `/`: ask with a browser, and see what was kept."""

from finch_integrations.serve.page.routes import make_page_routes

__all__ = ["make_page_routes"]
