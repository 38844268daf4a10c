"""One canvas on the host: its sampling rule, its stopping rule and the interface of guides. Holds no weights."""
