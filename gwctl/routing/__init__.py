"""Graph in; out come virtual hosts with ordered candidates, and the reference matcher that says what is right."""
