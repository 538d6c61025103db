"""Tilewright: compile a network for a parameterised DPU, and know its cycles, traffic and energy."""
