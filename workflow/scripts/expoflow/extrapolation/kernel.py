"""theta2 = theta1 + alpha * (theta1 - theta0) over memory: one loop, compiled by LLVM when it is first needed.

An element of bf16 costs about half of what a chain of torch's operations takes (of fp16, which torch converts in hardware,
half as much again), and compiling takes some hundredths of a second where importing torch takes more than one. Several
alphas share one loop: an element is read and widened once for all of them. `arithmetic` has what the loop leaves out: NaN, Inf, other roundings.
"""

import ctypes
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache

from expoflow.checkpoints.header import SIZES

# Absolute value, as its bits, from which on a number becomes Inf when it is rounded to the type, and NaN is above.
LARGEST = {"BF16": 0x7F7F8000, "F16": 0x477FF000, "F32": 0x7F800000, "F64": 0x7FF0000000000000}
# 2**112 is what float16's exponents lack of float32's; a float16 below 2**-14 is a multiple of the last bit of 0.5.
LOAD = {
    "BF16": """
  %{x}.half = load i16, ptr %{x}.at, align 1
  %{x}.low = zext i16 %{x}.half to i32
  %{x}.bits = shl i32 %{x}.low, 16
  %{x}.stored = bitcast i32 %{x}.bits to float""",
    "F16": """
  %{x}.half = load i16, ptr %{x}.at, align 1
  %{x}.all = zext i16 %{x}.half to i32
  %{x}.size = and i32 %{x}.all, 32767
  %{x}.low = shl i32 %{x}.size, 13
  %{x}.small = bitcast i32 %{x}.low to float
  %{x}.scaled = fmul float %{x}.small, 0x46F0000000000000
  %{x}.finite = bitcast float %{x}.scaled to i32
  %{x}.special = icmp uge i32 %{x}.size, 31744
  %{x}.infinite = or i32 %{x}.finite, 2139095040
  %{x}.positive = select i1 %{x}.special, i32 %{x}.infinite, i32 %{x}.finite
  %{x}.minus = and i32 %{x}.all, 32768
  %{x}.sign = shl i32 %{x}.minus, 16
  %{x}.bits = or i32 %{x}.positive, %{x}.sign
  %{x}.stored = bitcast i32 %{x}.bits to float""",
    "F32": """
  %{x}.stored = load float, ptr %{x}.at, align 1""",
    "F64": """
  %{x}.stored = load double, ptr %{x}.at, align 1""",
}
STORE = {  # to nearest, ties to even
    "BF16": """
  %above{n} = lshr i32 %bits{n}, 16
  %odd{n} = and i32 %above{n}, 1
  %half{n} = add i32 %odd{n}, 32767
  %rounded{n} = add i32 %bits{n}, %half{n}
  %shifted{n} = lshr i32 %rounded{n}, 16
  %new{n} = trunc i32 %shifted{n} to i16
  store i16 %new{n}, ptr %out.at{n}, align 1""",
    "F16": """
  %positive{n} = and i32 %bits{n}, 2147483647
  %float{n} = bitcast i32 %positive{n} to float
  %tiny{n} = fadd float %float{n}, 0.5
  %tiny.bits{n} = bitcast float %tiny{n} to i32
  %subnormal{n} = sub i32 %tiny.bits{n}, 1056964608
  %above{n} = lshr i32 %positive{n}, 13
  %odd{n} = and i32 %above{n}, 1
  %half{n} = add i32 %odd{n}, 3355447295
  %rounded{n} = add i32 %positive{n}, %half{n}
  %normal{n} = lshr i32 %rounded{n}, 13
  %is.tiny{n} = icmp ult i32 %positive{n}, 947912704
  %without.sign{n} = select i1 %is.tiny{n}, i32 %subnormal{n}, i32 %normal{n}
  %high{n} = lshr i32 %bits{n}, 16
  %minus{n} = and i32 %high{n}, 32768
  %all{n} = or i32 %without.sign{n}, %minus{n}
  %new{n} = trunc i32 %all{n} to i16
  store i16 %new{n}, ptr %out.at{n}, align 1""",
    "F32": """
  store float %value{n}, ptr %out.at{n}, align 1""",
    "F64": """
  store double %value{n}, ptr %out.at{n}, align 1""",
}
LOOP = """
declare {wide} @llvm.fma.{suffix}({wide}, {wide}, {wide})

define i64 @loop(ptr noalias %a, ptr noalias %b, i64 %count, {parameters}) {{
entry:{weights}
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %body, label %end
body:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %most0 = phi {integer} [ 0, %entry ], [ %most{outputs}, %body ]
  %a.byte = mul i64 %i, {a_size}
  %b.byte = mul i64 %i, {b_size}
  %out.byte = mul i64 %i, {out_size}
  %a.at = getelementptr i8, ptr %a, i64 %a.byte
  %b.at = getelementptr i8, ptr %b, i64 %b.byte{loads}
  %delta = fsub {wide} %b.wide, %a.wide{each}
  %next = add nuw nsw i64 %i, 1
  %done = icmp eq i64 %next, %count
  br i1 %done, label %end, label %body
end:
  %found = phi {integer} [ 0, %entry ], [ %most{outputs}, %body ]
  %result = {widen_found}
  ret i64 %result
}}
"""
EACH = """
  %out.at{n} = getelementptr i8, ptr %out{n}, i64 %out.byte
  %sum{n} = call {wide} @llvm.fma.{suffix}({wide} %weight{n}, {wide} %delta, {wide} %{base}.wide)
  %value{n} = {narrow_sum}
  %bits{n} = bitcast {value} %value{n} to {integer}{store}
  %size{n} = and {integer} %bits{n}, {no_sign}
  %more{n} = icmp ugt {integer} %size{n}, %most{n}
  %most{m} = select i1 %more{n}, {integer} %size{n}, {integer} %most{n}"""
TOGETHER = 8  # alphas at most in one loop: more would not fit into the registers, and take long to compile
_compiling = threading.Lock()


def fill(
    outs: Sequence[int],
    theta1: int,
    theta0: int,
    kinds: tuple[str, str, str],
    count: int,
    alphas: tuple[float, ...],
) -> bool:
    """Write `count` elements of theta2 of each alpha to its address of `outs`, rounded once to its type.

    `kinds`: header types of an output, theta1 and theta0 (addresses too), which need no alignment. Computed in float32
    where all three are bf16 or fp16 (it holds nearly all their differences exactly), else, and for alphas between -1
    and 0, in float64, as fma(alpha, theta1 - theta0, theta1) or, the same function, fma(1 + alpha, theta1 - theta0,
    theta0). Threads may call it at once: the interpreter runs on meanwhile. False where an element is NaN or Inf or
    became it: what was written is then to be judged.
    """
    with _compiling:
        loops = _loops(kinds, alphas)
    largest = 0
    for loop, theta1_first, members, weights in loops:
        a, b = (theta1, theta0) if theta1_first else (theta0, theta1)
        largest = max(largest, loop(a, b, count, *(outs[member] for member in members), *weights))
    return largest < LARGEST[kinds[0]]


@cache
def _loops(kinds: tuple[str, str, str], alphas: tuple[float, ...]) -> list[tuple]:
    """What computes them: loops, whether theta1 comes first, for which of the alphas, with what weights."""
    groups = {}
    for number, alpha in enumerate(alphas):
        double = -1 < alpha < 0 or not all(SIZES[kind] == 2 for kind in kinds)
        # Of the two orders the one is taken whose product is -0.0 for an equal pair, which leaves 0.0 and -0.0 as they
        # are; of the two formulas the one with the smaller weight.
        theta1_first = alpha > 0 or -1 < alpha < -0.5
        weight = -alpha if theta1_first else 1 + alpha
        from_b = abs(weight) >= 0.5
        if from_b:
            weight = (weight if double else ctypes.c_float(weight).value) - 1
        groups.setdefault((theta1_first, double), []).append((number, weight, from_b))
    loops = []
    for (theta1_first, double), group in groups.items():
        order = (kinds[1], kinds[2]) if theta1_first else (kinds[2], kinds[1])
        for start in range(0, len(group), TOGETHER):
            members, weights, bases = zip(*group[start : start + TOGETHER], strict=True)
            loops.append((_compiled(kinds[0], *order, double, bases), theta1_first, members, weights))
    return loops


@cache
def _compiled(out: str, a: str, b: str, double: bool, from_b: tuple[bool, ...]):
    import llvmlite.binding as llvm

    with suppress(AttributeError):
        # A vLLM that starts later in this process reads vars() of whatever modules hold; llvmlite's library has none.
        llvm.ffi.lib._fntab["__dict__"] = {}
    machine = _machine()
    module = llvm.parse_assembly(_source(out, a, b, double, from_b))
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = True
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    p, i, d = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    outputs = len(from_b)
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, p, p, i, *[p] * outputs, *[d] * outputs)
    loop = kind(engine.get_function_address("loop"))
    loop.engine = engine  # which owns the code
    return loop


def _source(out: str, a: str, b: str, double: bool, from_b: tuple[bool, ...]) -> str:
    """The loop in LLVM's language for three types; `double`: computed in float64; for each output the base of its sum."""
    wide, value = "double" if double else "float", "double" if out == "F64" else "float"
    integer = "i64" if out == "F64" else "i32"

    def same(to: str, name: str) -> str:
        return f"bitcast {to} {name} to {to}"

    def load(kind: str, x: str) -> str:
        stored = "double" if kind == "F64" else "float"
        change = same(wide, f"%{x}.stored") if stored == wide else f"fpext float %{x}.stored to double"
        return LOAD[kind].format(x=x) + f"\n  %{x}.wide = {change}"

    def each(n: int) -> str:
        return EACH.format(
            n=n,
            m=n + 1,
            base="b" if from_b[n] else "a",
            store=STORE[out].format(n=n),
            narrow_sum=same(wide, f"%sum{n}") if value == wide else f"fptrunc double %sum{n} to float",
            no_sign=2**63 - 1 if out == "F64" else 2**31 - 1,
            **types,
        )

    def weight(n: int) -> str:
        return same("double", f"%alpha{n}") if double else f"fptrunc double %alpha{n} to float"

    types = {"wide": wide, "suffix": "f64" if double else "f32", "value": value, "integer": integer}
    outputs = range(len(from_b))
    return LOOP.format(
        **types,
        parameters=", ".join(
            [*(f"ptr noalias %out{n}" for n in outputs), *(f"double %alpha{n}" for n in outputs)]
        ),
        weights="".join(f"\n  %weight{n} = {weight(n)}" for n in outputs),
        outputs=len(outputs),
        a_size=SIZES[a],
        b_size=SIZES[b],
        out_size=SIZES[out],
        loads=load(a, "a") + load(b, "b"),
        each="".join(map(each, outputs)),
        widen_found=same("i64", "%found") if integer == "i64" else "zext i32 %found to i64",
    )


@cache
def _machine():
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3
    )
