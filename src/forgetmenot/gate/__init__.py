"""May it ship? What a tuned model lost against its base, judged task by task: `fmn check`."""
