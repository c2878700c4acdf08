"""What a request says: its body, windows, baseline, outputs and accepted media types, with a place for each error."""
