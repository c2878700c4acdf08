"""``python -m service.document`` writes the committed OpenAPI document; with ``--check`` it compares it."""

import sys

from service.document.openapi import main

if __name__ == "__main__":
    sys.exit(main())
