"""How the bundled quickstart was made: a small language, four tasks, running text, two small models."""
