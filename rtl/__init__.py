"""The hardware in Amaranth: to come. The instruction set, the latencies and the simulator in this package specify it."""
