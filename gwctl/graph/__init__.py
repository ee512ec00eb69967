"""Snapshot in; out comes which route attaches where, which reference is allowed, and every problem."""
