"""Values that every layer of Tilewright shares: graph, machine, tiling IR, instruction set, reference."""
