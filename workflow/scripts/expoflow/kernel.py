"""theta2 = theta1 + alpha * (theta1 - theta0) over memory: one loop, compiled by LLVM when it is first needed.

An element of bf16 costs about half of what a chain of torch's operations takes (of fp16, which torch converts in hardware,
half as much again), and compiling takes some hundredths of a second where importing torch takes more than one. `arithmetic` has what the loop leaves out: NaN, Inf, other roundings.
"""

import ctypes
import threading
from functools import cache

from expoflow.header import SIZES

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
  %above = lshr i32 %bits, 16
  %odd = and i32 %above, 1
  %half = add i32 %odd, 32767
  %rounded = add i32 %bits, %half
  %shifted = lshr i32 %rounded, 16
  %new = trunc i32 %shifted to i16
  store i16 %new, ptr %out.at, align 1""",
    "F16": """
  %positive = and i32 %bits, 2147483647
  %float = bitcast i32 %positive to float
  %tiny = fadd float %float, 0.5
  %tiny.bits = bitcast float %tiny to i32
  %subnormal = sub i32 %tiny.bits, 1056964608
  %above = lshr i32 %positive, 13
  %odd = and i32 %above, 1
  %half = add i32 %odd, 3355447295
  %rounded = add i32 %positive, %half
  %normal = lshr i32 %rounded, 13
  %is.tiny = icmp ult i32 %positive, 947912704
  %without.sign = select i1 %is.tiny, i32 %subnormal, i32 %normal
  %high = lshr i32 %bits, 16
  %minus = and i32 %high, 32768
  %all = or i32 %without.sign, %minus
  %new = trunc i32 %all to i16
  store i16 %new, ptr %out.at, align 1""",
    "F32": """
  store float %value, ptr %out.at, align 1""",
    "F64": """
  store double %value, ptr %out.at, align 1""",
}
LOOP = """
declare {wide} @llvm.fma.{suffix}({wide}, {wide}, {wide})

define i64 @loop(ptr noalias %out, ptr noalias %a, ptr noalias %b, i64 %count, double %alpha, i1 %from_b) {{
entry:
  %weight = {narrow_alpha}
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %body, label %end
body:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %most = phi {integer} [ 0, %entry ], [ %largest, %body ]
  %a.byte = mul i64 %i, {a_size}
  %b.byte = mul i64 %i, {b_size}
  %out.byte = mul i64 %i, {out_size}
  %a.at = getelementptr i8, ptr %a, i64 %a.byte
  %b.at = getelementptr i8, ptr %b, i64 %b.byte
  %out.at = getelementptr i8, ptr %out, i64 %out.byte{loads}
  %delta = fsub {wide} %b.wide, %a.wide
  %base = select i1 %from_b, {wide} %b.wide, {wide} %a.wide
  %sum = call {wide} @llvm.fma.{suffix}({wide} %weight, {wide} %delta, {wide} %base)
  %value = {narrow_sum}
  %bits = bitcast {value} %value to {integer}{store}
  %size = and {integer} %bits, {no_sign}
  %more = icmp ugt {integer} %size, %most
  %largest = select i1 %more, {integer} %size, {integer} %most
  %next = add nuw nsw i64 %i, 1
  %done = icmp eq i64 %next, %count
  br i1 %done, label %end, label %body
end:
  %found = phi {integer} [ 0, %entry ], [ %largest, %body ]
  %result = {widen_found}
  ret i64 %result
}}
"""
_compiling = threading.Lock()


def fill(out: int, theta1: int, theta0: int, kinds: tuple[str, str, str], count: int, alpha: float) -> bool:
    """Write `count` elements of theta2 to address `out`, rounded once to its type; the other two are addresses too.

    `kinds`: header types of the three, which need no alignment. Computed in float32 where all three are bf16 or fp16
    (it holds nearly all their differences exactly), else, and for alphas between -1 and 0, in float64, as
    fma(alpha, theta1 - theta0, theta1) or, the same function, fma(1 + alpha, theta1 - theta0, theta0).
    Threads may call it at once: the interpreter runs on meanwhile. False where an element is NaN or Inf or became it:
    what was written is then to be judged.
    """
    double = -1 < alpha < 0 or not all(SIZES[kind] == 2 for kind in kinds)
    # Of the two orders the one is taken whose product is -0.0 for an equal pair, which leaves 0.0 and -0.0 as they are;
    # of the two formulas the one with the smaller weight.
    theta1_first = alpha > 0 or -1 < alpha < -0.5
    a, b, weight = (theta1, theta0, -alpha) if theta1_first else (theta0, theta1, 1 + alpha)
    from_b = abs(weight) >= 0.5
    if from_b:
        weight = (weight if double else ctypes.c_float(weight).value) - 1
    order = (kinds[1], kinds[2]) if theta1_first else (kinds[2], kinds[1])
    return _loop(kinds[0], *order, double)(out, a, b, count, weight, from_b) < LARGEST[kinds[0]]


def _loop(out: str, a: str, b: str, double: bool):
    with _compiling:
        return _compiled(out, a, b, double)


@cache
def _compiled(out: str, a: str, b: str, double: bool):
    import llvmlite.binding as llvm

    machine = _machine()
    module = llvm.parse_assembly(_source(out, a, b, double))
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = True
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    p, i, d = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, p, p, p, i, d, ctypes.c_bool)
    loop = kind(engine.get_function_address("loop"))
    loop.engine = engine  # which owns the code
    return loop


def _source(out: str, a: str, b: str, double: bool) -> str:
    """The loop in LLVM's language for three types; `double`: computed in float64."""
    wide, value = "double" if double else "float", "double" if out == "F64" else "float"
    integer = "i64" if out == "F64" else "i32"

    def same(to: str, name: str) -> str:
        return f"bitcast {to} {name} to {to}"

    def load(kind: str, x: str) -> str:
        stored = "double" if kind == "F64" else "float"
        change = same(wide, f"%{x}.stored") if stored == wide else f"fpext float %{x}.stored to double"
        return LOAD[kind].format(x=x) + f"\n  %{x}.wide = {change}"

    return LOOP.format(
        wide=wide,
        suffix="f64" if double else "f32",
        value=value,
        integer=integer,
        a_size=SIZES[a],
        b_size=SIZES[b],
        out_size=SIZES[out],
        loads=load(a, "a") + load(b, "b"),
        store=STORE[out],
        narrow_alpha=same("double", "%alpha") if double else "fptrunc double %alpha to float",
        narrow_sum=same(wide, "%sum") if value == wide else "fptrunc double %sum to float",
        no_sign=2**63 - 1 if out == "F64" else 2**31 - 1,
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
