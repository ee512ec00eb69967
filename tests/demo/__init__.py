"""`make demo`: gwctl before a real HAProxy on this machine, step by step."""
