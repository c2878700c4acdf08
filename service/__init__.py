"""The HTTP side of Kanscope: it translates, limits and reports, and leaves the maths to `kanmodel`."""
