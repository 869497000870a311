"""Where an answer comes from."""

METHODS = ("auto", "occlusion", "rollout")  # for the command line's completion, too: nothing heavy here
