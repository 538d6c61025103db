"""The hardware in Amaranth: the core, its Verilog, co-simulation with Verilator, packages for boards."""
