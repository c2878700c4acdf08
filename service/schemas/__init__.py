"""What requests and answers look like in JSON: one file a resource.

Requests are pydantic models. Answers are typed dicts: mypy checks what is built, and nothing is validated twice.
Results of the core come in finished; no function here runs a model.
"""
