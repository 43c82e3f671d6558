"""How `fusion.tune` chooses: the methods, their settings, and the guard against luck."""
