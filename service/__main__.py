"""The command `kanscope`, or one sentence where the packages of the extra `serve` are not installed."""

import sys

from kanmodel.errors import ConfigError, needs_package


def main() -> None:
    """Runs the command line."""
    try:
        with needs_package("the command kanscope", "kanscope[serve]"):
            from service.cli import main as run
    except ConfigError as error:
        print(f"kanscope: {error}", file=sys.stderr)
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
