"""`python -m finch_integrations` is `finch`."""

from finch_integrations.cli import main

if __name__ == "__main__":
    main()
