"""Output that always fits: grammars, tool calls, typed decisions and infilling, as guides of the denoising loop."""
