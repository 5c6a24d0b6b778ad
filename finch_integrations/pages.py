"""HTML pages from templates that are beside the code that fills them in."""

import jinja2


def templates_of(package: str) -> jinja2.Environment:
    """The templates of a package: whatever is filled in is escaped, a forgotten value an error.

    Args:
        package: Its full name.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
