"""Statistics of series of numbers: intervals, p-values, errors, coverage, and which of many to look at; no models."""
