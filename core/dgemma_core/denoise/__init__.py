"""One canvas on the host: the sampling rule, the stopping rule and what may steer it. Knows no weights."""
