"""What gwctl relies on of the Data Plane API, as plain HTTP, against the stand-in and against a real one.

The suite says how the real one behaves, its surprises included; where the stand-in differs, the stand-in is
wrong. It knows nothing of gwctl's own client.
"""
