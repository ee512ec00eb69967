"""Tests of gwctl, and what they and the demo stand on: `tests.parts` and `tests.harness`."""
