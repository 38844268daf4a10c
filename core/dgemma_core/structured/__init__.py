"""Output that always fits: grammars, tool calls, typed decisions and infilling on top of the denoising loop."""
