"""The browser that tests drive."""

from __future__ import annotations

from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium-headless-shell")  # Debian's, which runs without a display
MISSING = f"{CHROMIUM} is missing: apt-get install chromium-headless-shell"
