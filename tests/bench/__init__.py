"""`make bench`: how long a change takes to reach traffic, with many routes live."""
