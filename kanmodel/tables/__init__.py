"""The only place that knows what a row of a table is: its instant, its place in the calendar, its series, its windows.

A table comes in, in any form that people have, and windows come out, which hold what was known when forecasts were due.
"""
