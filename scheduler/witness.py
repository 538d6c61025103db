"""The same schedule with every map brought to DRAM, so that each byte of each layer can be compared."""

from __future__ import annotations

from dataclasses import replace

from ..ir.errors import ProgramError
from ..ir.tile import Group, Statement
from .lower import Plan, lower
from .plan import plan_tiling
from .search import Options

__all__ = ["saving_all"]


def saving_all(plan: Plan) -> Plan:
    """A plan whose program saves every layer's map.

    The tiling is the given one with a save after each layer; where that does not do (a table is folded into a
    convolution, so its input is nowhere; or a ring is too small for rows that nobody else needs), it is planned anew.
    """
    if "folded" not in plan.engines:
        tiling = replace(plan.tiling, groups=tuple(map(_saved, plan.tiling.groups)))
        try:
            return lower(tiling, plan.graph, plan.arch)
        except ProgramError:
            pass
    tiling, layers = plan_tiling(plan.graph, plan.arch, options=Options(save_all=True))
    return lower(tiling, plan.graph, plan.arch, layers)


def _saved(group: Group) -> Group:
    already = {s.tensor for s in group.statements if s.kind == "save"}
    body: list[Statement] = []
    for s in group.statements:
        body.append(s)
        if s.layer and s.kind != "view" and s.tensor not in already:
            body.append(Statement("save", s.tensor, (0, 0, 0), stage=s.stage))
    return replace(group, statements=tuple(body))
