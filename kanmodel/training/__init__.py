"""From a table of rows to a trained model, beside the forecasts that it must beat."""
