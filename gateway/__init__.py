"""The front door: checks a request, calls the stages in order, answers. Never imports torch."""
