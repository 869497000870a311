"""kovqa: the command line. Every file here parses words, calls one core function, shows the result."""
