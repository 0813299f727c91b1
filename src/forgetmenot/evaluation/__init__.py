"""How a task is put to the model and its answer is read: settings, scoring, routing, readings."""
