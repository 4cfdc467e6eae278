"""What a person starts: the `cliptune` command and its verbs, one a file."""
