"""The distributed study: the only room that knows all the others, and Ray."""
