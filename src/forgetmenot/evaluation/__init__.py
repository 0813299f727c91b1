"""The scoring of tasks: settings, ways of scoring, routing, readings."""
