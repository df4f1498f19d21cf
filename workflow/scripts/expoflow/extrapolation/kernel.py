"""theta2 = theta1 + alpha * (theta1 - theta0) over memory: one loop, compiled by LLVM on first use.

`element` is the loop in Python, and a test compares the two bit for bit; `_written` is the loop
itself. It leaves alphas 0 and -1, NaN, Inf, overflow and other roundings to `arithmetic`.
`bench/kernel.py` compares its speed with numba and torch.
"""

import ctypes
import math
import threading
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from functools import cache

from expoflow.checkpoints.header import SIZES

# By type: binary digits of a number, exponent of the smallest number's last digit, exponent of the
# least number that is too large.
DIGITS = {"BF16": (8, -133, 128), "F16": (11, -24, 16), "F32": (24, -149, 128), "F64": (53, -1074, 1024)}
# By type: bits of the least absolute value that rounds to Inf in the type; bits of NaN are larger.
LARGEST = {"BF16": 0x7F7F8000, "F16": 0x477FF000, "F32": 0x7F800000, "F64": 0x7FF0000000000000}
TOGETHER = 8  # most alphas in one loop: more do not fit into registers
Kinds = tuple[str, str, str]  # header types of the output, theta1 and theta0
_compiling = threading.Lock()


def element(theta1: float, theta0: float, kinds: Kinds, alpha: float) -> float:
    """Compute one element as the loop does, from numbers of the types `kinds[1:]`.

    `alpha` is finite and neither 0 nor -1. The result is fma(weight, b - a, base), rounded to the
    output's type. Every rounding is explicit here, exact and slow. The result is NaN or Inf if
    `fill` must return False.
    """
    wide, (theta1_first, weight, from_b) = precision(kinds, alpha), formula(kinds, alpha)
    a, b = (theta1, theta0) if theta1_first else (theta0, theta1)
    base = b if from_b else a
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.nan
    # A zero has no sign as a fraction, so Python's own arithmetic computes it.
    delta = rounded(Fraction(b) - Fraction(a) or b - a, wide)
    if math.isinf(delta):
        return math.nan
    total = rounded(Fraction(weight) * Fraction(delta) + Fraction(base) or weight * delta + base, wide)
    return rounded(rounded(total, "F64" if kinds[0] == "F64" else "F32"), kinds[0])


def rounded(number: Fraction | float, kind: str) -> float:
    """Round `number` to the nearest number of a type, ties to even; Inf if it is too large."""
    if not number or number in (math.inf, -math.inf):
        return number
    digits, lowest, highest = DIGITS[kind]
    above, below = abs(number).as_integer_ratio()  # `below` is a power of two
    last = max(above.bit_length() - below.bit_length() + 1 - digits, lowest)
    nearest = round(Fraction(above, below) / Fraction(2) ** last) * Fraction(2) ** last
    return math.copysign(nearest if nearest < 2**highest else math.inf, number)


def precision(kinds: Kinds, alpha: float) -> str:
    """Return the type in which theta2 is computed.

    float32 holds nearly all differences of two-byte numbers exactly.
    """
    return "F64" if -1 < alpha < 0 or any(SIZES[kind] != 2 for kind in kinds) else "F32"


def formula(kinds: Kinds, alpha: float) -> tuple[bool, float, bool]:
    """Return how theta2 is fma(weight, b - a, base).

    The three values are: whether a is theta1 (otherwise b is), the weight, and whether the base is
    b. The order is chosen so that the product is -0.0 for an equal pair, which leaves 0.0 and -0.0
    as they are. The base is the one with the smaller weight.
    """
    theta1_first = alpha > 0 or -1 < alpha < -0.5
    weight = -alpha if theta1_first else 1 + alpha
    from_b = abs(weight) >= 0.5
    stored = ctypes.c_double if precision(kinds, alpha) == "F64" else ctypes.c_float
    weight = stored(weight).value
    return theta1_first, stored(weight - 1).value if from_b else weight, from_b


def fill(
    outs: Sequence[int], theta1: int, theta0: int, kinds: Kinds, count: int, alphas: tuple[float, ...]
) -> bool:
    """Write `count` elements of theta2 for each alpha to its address in `outs`.

    No alpha may be 0 or -1. `theta1` and `theta0` are addresses too; no address needs an alignment.
    `kinds` are BF16, F16, F32 or F64 in any mixture. Several threads may call this at once, since
    the loop releases the GIL. Returns False if an element is or became NaN or Inf; the caller must
    then judge what was written.
    """
    with _compiling:
        loops = _loops(kinds, alphas)
    largest = 0
    for loop, theta1_first, members, weights in loops if count else ():
        a, b = (theta1, theta0) if theta1_first else (theta0, theta1)
        largest = max(largest, loop(a, b, count, *(outs[member] for member in members), *weights))
    return largest < LARGEST[kinds[0]]


@cache
def _loops(kinds: Kinds, alphas: tuple[float, ...]) -> list[tuple]:
    """Return the loops: (loop, whether theta1 comes first, indices of its alphas, weights)."""
    groups = {}
    for number, alpha in enumerate(alphas):
        theta1_first, weight, from_b = formula(kinds, alpha)
        groups.setdefault((theta1_first, precision(kinds, alpha)), []).append((number, weight, from_b))
    loops = []
    for (theta1_first, wide), group in groups.items():
        order = (kinds[1], kinds[2]) if theta1_first else (kinds[2], kinds[1])
        for start in range(0, len(group), TOGETHER):
            members, weights, bases = zip(*group[start : start + TOGETHER], strict=True)
            loops.append((_compiled(kinds[0], *order, wide, bases), theta1_first, members, weights))
    return loops


def _written(out: str, a: str, b: str, wide: str, from_b: tuple[bool, ...]) -> str:
    """Return the loop in LLVM's language.

    It does what `element` does, for as many outputs as `from_b` has, which share b - a. Its
    arguments are the addresses of a and b, the count (not 0), the addresses of the outputs, and
    their weights. It returns the bits of the largest absolute value; a NaN's bits are larger than
    those of Inf.
    """
    from llvmlite import ir

    pointer, i16, i32, i64 = ir.PointerType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
    f32, f64 = ir.FloatType(), ir.DoubleType()
    types = {"BF16": i16, "F16": ir.HalfType(), "F32": f32, "F64": f64}
    value, bits = (f64, i64) if out == "F64" else (f32, i32)
    outputs = len(from_b)
    arguments = [pointer, pointer, i64, *[pointer] * outputs, *[f64] * outputs]
    loop = ir.Function(ir.Module(), ir.FunctionType(i64, arguments), "loop")
    at_a, at_b, count, *rest = loop.args
    for address in (at_a, at_b, *rest[:outputs]):
        address.add_attribute("noalias")
    entry, body, end = (loop.append_basic_block(name) for name in ("entry", "body", "end"))
    do = ir.IRBuilder(entry)
    # A cast to a number's own type does nothing.
    weights = [do.fptrunc(weight, types[wide]) for weight in rest[outputs:]]
    do.branch(body)
    do.position_at_end(body)
    i, most = do.phi(i64), do.phi(bits)

    def read(array: ir.Value, kind: str) -> ir.Value:
        stored = do.load(do.gep(array, [i], source_etype=types[kind]), typ=types[kind], align=1)
        if kind == "BF16":  # the upper half of a float32
            stored = do.bitcast(do.shl(do.zext(stored, i32), i32(16)), f32)
        return do.fpext(stored, types[wide])

    def write(array: ir.Value, number: ir.Value) -> None:
        if out == "BF16":  # LLVM's own rounding flushes subnormals to 0 on some CPUs
            whole = do.bitcast(number, i32)
            odd = do.and_(do.lshr(whole, i32(16)), i32(1))
            stored = do.trunc(do.lshr(do.add(whole, do.add(odd, i32(0x7FFF))), i32(16)), i16)
        else:
            stored = do.fptrunc(number, types[out])
        do.store(stored, do.gep(array, [i], source_etype=types[out]), align=1)

    one, other = read(at_a, a), read(at_b, b)
    delta = do.fsub(other, one)
    largest = most
    for array, weight, base in zip(rest[:outputs], weights, from_b, strict=True):
        total = do.fptrunc(do.fma(weight, delta, other if base else one), value)
        write(array, total)
        size = do.and_(do.bitcast(total, bits), bits(2 ** (bits.width - 1) - 1))
        largest = do.select(do.icmp_unsigned(">", size, largest), size, largest)
    following = do.add(i, i64(1))
    for variable, first, next_ in ((i, i64(0), following), (most, bits(0), largest)):
        variable.add_incoming(first, entry)
        variable.add_incoming(next_, body)
    do.cbranch(do.icmp_unsigned("<", following, count), body, end)
    do.position_at_end(end)
    do.ret(do.zext(largest, i64))
    return str(loop.module)


@cache
def _compiled(out: str, a: str, b: str, wide: str, from_b: tuple[bool, ...]):
    import llvmlite.binding as llvm

    with suppress(AttributeError):
        # If vLLM starts later in this process, it reads vars() of objects in modules; llvmlite's
        # library object has no __dict__.
        llvm.ffi.lib._fntab["__dict__"] = {}
    machine = _machine()
    module = llvm.parse_assembly(_written(out, a, b, wide, from_b))
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
    loop.engine = engine  # it owns the code
    return loop


def _machine():
    """Return this CPU as a target for one engine, which takes ownership of it."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    target = llvm.Target.from_default_triple()
    if target.name.startswith("x86") and not features.get("f16c"):
        # CPUs from before 2012 convert float16 by GCC's functions. OSError or AttributeError if
        # this system has none.
        library = ctypes.CDLL("libgcc_s.so.1")
        for name in ("__extendhfsf2", "__truncsfhf2"):
            llvm.add_symbol(name, ctypes.cast(library[name], ctypes.c_void_p).value)
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=3)
