"""The compiled loop: bit for bit what stands above it in Python, whatever the types; what is not finite is told."""

import ctypes
import itertools
import math
import platform

import pytest
import torch
from checkpoints import bits
from expoflow.checkpoints.torch_types import BITS, TORCH
from expoflow.extrapolation import kernel
from expoflow.extrapolation.kernel import LARGEST, TOGETHER, element, fill, formula

KINDS = list(LARGEST)
ALPHAS = (0.3, 4.0, -0.3, -0.7, -1.2, -2.0)  # both orders, both bases and both precisions


def filled(theta1, theta0, kinds, alpha):
    out = torch.empty(len(theta1), dtype=TORCH[kinds[0]])
    return out, fill([out.data_ptr()], theta1.data_ptr(), theta0.data_ptr(), kinds, len(out), (alpha,))


def every(kind):
    """All numbers of a type of two bytes."""
    return torch.arange(65536, dtype=torch.int32).to(torch.int16).view(TORCH[kind])


def any_bits(kind, count, generator):
    integer = BITS[TORCH[kind]]
    words = torch.randint(-(2**15), 2**15, (count, integer.itemsize // 2), generator=generator)
    return words.to(torch.int16).view(integer).flatten().view(TORCH[kind])


def in_python(theta1, theta0, kinds, alpha):
    """As `element` says, in the output's type: a conversion of numbers that it holds exactly."""
    numbers = zip(theta1.double().tolist(), theta0.double().tolist(), strict=True)
    right = [element(one, zero, kinds, alpha) for one, zero in numbers]
    return torch.tensor(right, dtype=torch.float64).to(TORCH[kinds[0]])


def assert_same(out, right, theta1, theta0):
    usual = right.isfinite()
    assert torch.equal(bits(out[usual]), bits(right[usual]))
    # What overflows is told by its bits; what had NaN or Inf before is found in the parents.
    assert not out[~usual & theta1.isfinite() & theta0.isfinite()].isfinite().any()


@pytest.mark.parametrize("kind", ["BF16", "F16"])
def test_every_number_of_two_bytes_is_computed_as_in_python(kind):
    """Each against another one, by one of several alphas that are computed together."""
    theta1 = every(kind)
    theta0 = theta1[torch.randperm(65536, generator=torch.Generator().manual_seed(11))]
    outs = torch.empty(len(ALPHAS), 65536, dtype=TORCH[kind])
    assert not fill(
        [out.data_ptr() for out in outs], theta1.data_ptr(), theta0.data_ptr(), (kind,) * 3, 65536, ALPHAS
    )
    for number, (out, alpha) in enumerate(zip(outs, ALPHAS, strict=True)):
        some = slice(number, None, len(ALPHAS))
        right = in_python(theta1[some], theta0[some], (kind,) * 3, alpha)
        assert_same(out[some], right, theta1[some], theta0[some])


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, repeat=3)))
def test_the_loop_does_what_stands_above_it_in_python(kinds):
    """Special values against each other, random bits, and pairs that lie close together."""
    generator = torch.Generator().manual_seed(13)
    largest, tiny = (2.0**15, 2.0**-24) if "F16" in kinds[1:] else (2.0**127, 2.0**-133)
    special = [0.0, -0.0, 1.0, -3.0, tiny, -3 * tiny, largest, -1.75 * largest, math.inf, math.nan]
    crossed = torch.tensor(list(itertools.product(special, repeat=2)), dtype=torch.float64)
    close = torch.randn(40, generator=generator).double()
    step = torch.randn(40, generator=generator).double() / 10
    theta1, theta0 = (
        torch.cat([row.to(TORCH[kind]), any_bits(kind, 40, generator), near.to(TORCH[kind])])
        for row, kind, near in zip(crossed.T, kinds[1:], (close + step, close), strict=True)
    )
    outs = torch.empty(len(ALPHAS), len(theta1), dtype=TORCH[kinds[0]])
    places = [out.data_ptr() for out in outs]
    assert not fill(places, theta1.data_ptr(), theta0.data_ptr(), kinds, len(theta1), ALPHAS)
    rights = torch.stack([in_python(theta1, theta0, kinds, alpha) for alpha in ALPHAS])
    for out, right in zip(outs, rights, strict=True):
        assert_same(out, right, theta1, theta0)
    for number, finite in enumerate(rights.isfinite().all(0).tolist()):
        one, zero = (each[number : number + 1] for each in (theta1, theta0))
        assert fill(places, one.data_ptr(), zero.data_ptr(), kinds, 1, ALPHAS) is finite


def test_a_processor_that_cannot_convert_float16(monkeypatch):
    llvm = pytest.importorskip("llvmlite.binding")
    if platform.machine() != "x86_64" or not hasattr(ctypes.CDLL("libgcc_s.so.1"), "__truncsfhf2"):
        pytest.skip("needs x86-64 and the library of GCC 12")
    theta1 = every("F16")
    theta0 = theta1[torch.randperm(65536, generator=torch.Generator().manual_seed(17))]
    right, _ = filled(theta1, theta0, ("F16",) * 3, 0.3)
    monkeypatch.setattr(llvm, "get_host_cpu_features", llvm.FeatureMap)
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: "nehalem")
    loop = kernel._compiled.__wrapped__("F16", "F16", "F16", "F32", (False,))
    out = torch.empty_like(theta1)
    loop(theta1.data_ptr(), theta0.data_ptr(), len(out), out.data_ptr(), formula(("F16",) * 3, 0.3)[1])
    assert_same(out, right, theta1, theta0)


@pytest.mark.parametrize("double", [False, True])
def test_every_float16_is_read(double):
    halves = every("F16")
    out, finite = filled(halves, halves, ("F32", "F16", "F16"), -0.3 if double else 0.3)
    usual = halves.isfinite()
    assert torch.equal(bits(out[usual]), bits(halves[usual].float()))
    assert not finite
    assert not out[~usual].isfinite().any()


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_two_bytes_are_written_as_torch_rounds(kind):
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(0, 0x7F800000, (1_000_000,), generator=generator, dtype=torch.int32).view(
        torch.float32
    )
    ties = torch.tensor(
        [2.0**-25, 2.0**-24 * 1.5, 2.0**-24, 2.0**-14, 2.0**-14 - 2.0**-25, 1 + 2.0**-8, 1 + 2.0**-11]
    )
    values = torch.cat([values, -values, ties, -ties])
    values = values[values.to(TORCH[kind]).isfinite()]
    out, finite = filled(values, values, (kind, "F32", "F32"), 0.3)
    assert torch.equal(bits(out), bits(values.to(TORCH[kind])))
    assert finite


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, repeat=3)))
@pytest.mark.parametrize("alpha", [0.3, 4.0, -0.3, -0.7, -1.2])
def test_every_mixture_is_what_float64_says(kinds, alpha):
    """If it is not a tie: the value rounded once more lies at most one unit in the last place away."""
    generator = torch.Generator().manual_seed(5)
    theta0 = torch.randn(1003, generator=generator).to(TORCH[kinds[2]])
    theta1 = (theta0.double() + torch.randn(1003, generator=generator) / 10).to(TORCH[kinds[1]])
    out, finite = filled(theta1, theta0, kinds, alpha)
    one, zero = theta1.double(), theta0.double()
    right = (one + alpha * (one - zero)).to(TORCH[kinds[0]])
    unit = torch.finfo(TORCH[kinds[0]]).eps * right.double().abs() + 1e-6 * one.abs()
    assert finite
    assert ((out.double() - right.double()).abs() <= unit).all()


@pytest.mark.parametrize(
    ("kind", "value", "finite"),
    [
        *(("F16", value, value < 65520) for value in (65519.99, 65520.0)),
        *(("BF16", value, value < 3.395e38) for value in (3.39e38, 3.4e38)),
        *((kind, value, False) for kind in KINDS for value in (math.nan, math.inf, -math.inf)),
    ],
)
def test_what_is_not_finite_is_told(kind, value, finite):
    values = torch.ones(37)
    values[30] = value
    assert filled(values, values.clone(), (kind, "F32", "F32"), 0.3)[1] is finite


def test_addresses_need_no_alignment():
    theta1, theta0 = torch.rand(50), torch.rand(50)
    right, _ = filled(theta1, theta0, ("F32", "F32", "F32"), 0.3)
    memory = torch.zeros(3, 50 * 4 + 1, dtype=torch.uint8)
    memory[1, 1:], memory[2, 1:] = theta1.view(torch.uint8), theta0.view(torch.uint8)
    out, *models = (row[1:].data_ptr() for row in memory)
    fill([out], *models, ("F32", "F32", "F32"), 50, (0.3,))
    assert torch.equal(memory[0, 1:].clone().view(torch.float32), right)


@pytest.mark.parametrize("kind", KINDS)
def test_alphas_computed_together_are_as_alone(kind):
    alphas = (0.3, -0.3, 4.0, 0.5, -0.7, 0.1, -1.2, *(1 + each / 10 for each in range(TOGETHER)))
    generator = torch.Generator().manual_seed(7)
    theta1, theta0 = (torch.randn(1003, generator=generator).to(TORCH[kind]) for _ in range(2))
    outs = torch.empty(len(alphas), len(theta1), dtype=TORCH[kind])
    places = [out.data_ptr() for out in outs]
    assert fill(places, theta1.data_ptr(), theta0.data_ptr(), (kind,) * 3, len(theta1), alphas)
    for out, alpha in zip(outs, alphas, strict=True):
        assert torch.equal(bits(out), bits(filled(theta1, theta0, (kind,) * 3, alpha)[0]))
    theta1[500] = math.inf
    assert not fill(places, theta1.data_ptr(), theta0.data_ptr(), (kind,) * 3, len(theta1), alphas)


def test_a_vllm_that_starts_later_may_read_all_that_modules_hold():
    from llvmlite.binding import ffi

    filled(torch.ones(2), torch.ones(2), ("F32", "F32", "F32"), 0.3)
    assert vars(ffi.lib).get("kernel") is None
