"""The imperative shell: the queue, the reconciler that empties it, and the process around both."""
