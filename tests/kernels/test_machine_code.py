"""Loops are found in what cuobjdump says."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from infllm.kernels.machine_code import MachineCode, loops_of

CODE = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;      /* 0x00000a00ff017b82 */
        /*0010*/                   STL [R1], R2 ;              /* 0x000000 */
        /*0020*/                   MUFU.EX2 R4, R5 ;           /* 0x000000 */
        /*0030*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], R24 ;
        /*0040*/                   LDL R2, [R1] ;
        /*0050*/              @P0  BRA 0x20 ;
        /*0060*/                   FADD R3, R3, R4 ;
        /*0070*/             @!UP1 BRA 0x60 ;
        /*0080*/              @P2  BRA 0x20 ;
        /*0090*/                   EXIT ;
        /*00a0*/                   BRA 0xa0;
"""


def test_innermost_loops_and_what_they_issue() -> None:
    products, sums = loops_of(CODE)
    assert products == {"MUFU": 1, "HGMMA": 1, "LDL": 1, "BRA": 1}
    assert sums == {"FADD": 1, "BRA": 1}
    code = MachineCode(255, 8, (products, sums))
    assert code.spilled == 1  # what lies before the loops is no matter
    assert code.products == [products]
