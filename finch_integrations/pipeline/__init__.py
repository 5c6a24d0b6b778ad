"""What all framework adapters share: a lazily loaded model, one question, one answer.

`SharedEngine.stream` and `.astream` are what adapters call; they know no framework.
"""
