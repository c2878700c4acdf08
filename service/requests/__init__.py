"""What a request asks: its body, windows, outputs and baseline, with a place for each error.

Whatever reads what a client has sent comes in; it hands on arrays and questions, and computes no answer.
"""
