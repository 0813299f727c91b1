"""One run: the continual loop, its directory and resume, preview and export."""
