"""The formula: correctly rounded, whatever the chunks, and bit for bit if both models agree."""

import itertools
import math
import os
import platform
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from checkpoints import bits
from expoflow.checkpoints.torch_types import tensor_of
from expoflow.errors import PairError
from expoflow.extrapolation import arithmetic
from expoflow.extrapolation.arithmetic import by_torch, theta2
from expoflow.extrapolation.effect import effects
from hypothesis import given, settings
from hypothesis import strategies as st

HALVES = (torch.bfloat16, torch.float16)
INTS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}
ALPHAS = st.one_of(
    st.sampled_from([0.1, 0.3, 0.5, 1.0, 4.0, 25.0, -0.3, -0.5, -0.7, -1.5, -2.0]),
    st.floats(-3, 30, allow_nan=False).filter(lambda alpha: alpha not in (0, -1)),
)


def expo(theta1, theta0, alpha, dtype=None, **kwargs):
    out = torch.empty(theta1.numel(), dtype=dtype or theta1.dtype)
    theta2(out, theta1, theta0, alpha, name="w", **kwargs)
    return out


def two_sum(a, b):
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def two_product(a, b):
    def split(value):
        big = value * 134217729.0
        high = big - (big - value)
        return high, value - high

    product, (a1, a0), (b1, b0) = a * b, split(a), split(b)
    return product, ((a1 * b1 - product) + a1 * b0 + a0 * b1) + a0 * b0


def correctly_rounded(theta1, theta0, alpha, dtype):
    """theta1 + alpha * (theta1 - theta0) without error, then rounded once, to nearest, ties to even.

    alpha is the decimal number as written: 0.3, not the double next to it, so that a tie is a tie. In float64:
    delta = theta1 - theta0; product = alpha * delta; total = theta1 + product, each with its error term. The
    total is rounded to odd, which makes the second rounding, to `dtype`, the right one.
    """
    one, zero = theta1.double().numpy(), theta0.double().numpy()
    alpha_error = float(Fraction(repr(alpha)) - Fraction(alpha))
    delta, delta_error = two_sum(one, -zero)
    product, product_error = two_product(np.full_like(delta, alpha), delta)
    total, total_error = two_sum(one, product)
    rest = total_error + (product_error + alpha_error * delta) + alpha * delta_error
    inexact = np.abs(rest) > 1e-30 * np.abs(one)  # below it is only the error of the error terms
    even = (total.view(np.int64) & 1) == 0
    odd = np.where(inexact & even, np.nextafter(total, np.copysign(np.inf, rest)), total)
    if dtype == torch.bfloat16:  # numpy has none: round the mantissa of 52 bits to 7
        whole = odd.view(np.int64)
        rounded = whole + (1 << 44) - 1 + ((whole >> 45) & 1)
        return torch.from_numpy((rounded >> 45 << 45).view(np.float64)).to(dtype)
    return torch.from_numpy(odd.astype({torch.float16: np.float16, torch.float32: np.float32}[dtype]))


def ordered(tensor):
    """Integers in the order of the floats, so that neighbours differ by one."""
    whole = tensor.view(INTS[tensor.dtype]).long()
    return torch.where(whole < 0, torch.iinfo(INTS[tensor.dtype]).min - whole, whole)


@pytest.mark.parametrize("alpha", [0.3, -0.4])
@pytest.mark.parametrize(
    ("dtype", "share"), [(torch.bfloat16, 2e-4), (torch.float16, 2e-4), (torch.float32, 1e-5)]
)
def test_ten_million_elements_are_correctly_rounded(dtype, share, alpha):
    """All but `share`, those next to the right value; but if theta2 cancels to nearly 0 it is theta1's last bits."""
    generator = torch.Generator().manual_seed(7)
    different = cancelled = 0
    for _ in range(10):
        theta0 = (torch.randn(1_000_000, generator=generator) * 0.02).to(dtype)
        theta1 = (theta0.float() + torch.randn(1_000_000, generator=generator) * 2e-3).to(dtype)
        found, right = expo(theta1, theta0, alpha), correctly_rounded(theta1, theta0, alpha, dtype)
        distance = (ordered(found) - ordered(right)).abs()
        different += int((distance > 0).sum())
        far = distance > 1
        cancelled += int(far.sum())
        assert (
            (found[far].double() - right[far].double()).abs() <= 2**-24 * theta1[far].double().abs()
        ).all()
    print(f"{dtype} alpha {alpha}: {different / 1e7:.1e} differ, {cancelled} where theta2 cancels")
    assert different / 1e7 <= share
    assert cancelled / 1e7 <= 2e-5


@pytest.mark.skipif(not arithmetic.exact("cpu"), reason="torch.add rounds twice on a CPU without fma")
@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.5, 1.0, 1.7, 8.0, -0.2, -0.5, -0.7, -1.5])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_torch_computes_the_kernels_bits(dtype, alpha):
    """11 million elements: of a model's weights, of any bits, and far apart; what a GPU computes an alpha with."""
    generator = torch.Generator().manual_seed(19)
    for part in range(11):
        if part < 8:
            theta0 = (torch.randn(1_000_000, generator=generator) * 0.02).to(dtype)
            theta1 = (theta0.float() + torch.randn(1_000_000, generator=generator) * 2e-3).to(dtype)
        elif part == 8:
            theta1, theta0 = (torch.randn(1_000_000, generator=generator).exp2().to(dtype) for _ in range(2))
        else:
            theta1, theta0 = (any_bits(dtype, 2 * part + side, 1_000_000) for side in range(2))
            usual = theta1.isfinite() & theta0.isfinite()
            theta1, theta0 = theta1.where(usual, -0.0), theta0.where(usual, -0.0)
        expected, found = torch.empty_like(theta1), torch.empty_like(theta1)
        arithmetic._one_rounding(expected, theta1, theta0, alpha)
        by_torch(found, theta1, theta0, alpha)
        sound = expected.isfinite()
        assert torch.equal(bits(found[sound]), bits(expected[sound]))
        assert torch.equal(found.isfinite(), sound)


@pytest.mark.skipif(not arithmetic.exact("cpu"), reason="torch.add rounds twice on a CPU without fma")
def test_torch_computes_the_kernels_bits_of_mixtures():
    for kinds in itertools.product([torch.bfloat16, torch.float16, torch.float32, torch.float64], repeat=3):
        theta1, theta0 = near(kinds[1], 3, 10_000)[0], near(kinds[2], 3, 10_000)[1]
        for alpha in (0.3, -0.4):
            found = torch.empty(10_000, dtype=kinds[0])
            by_torch(found, theta1, theta0, alpha)
            assert torch.equal(bits(found), bits(expo(theta1, theta0, alpha, kinds[0])))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors always have it")
def test_a_device_that_rounds_a_product_before_it_adds_is_found_out():
    """Such is torch on a processor without fma, or told that it has none."""
    text = "from expoflow.extrapolation.arithmetic import exact; print(exact('cpu'))"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    told = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True)
    assert told.stdout.split() == ["False"], told.stderr


def test_a_device_that_makes_small_numbers_0_is_found_out():
    text = "import torch; from expoflow.extrapolation.arithmetic import exact; print(torch.set_flush_denormal(True), exact('cpu'))"
    told = subprocess.run([sys.executable, "-c", text], text=True, capture_output=True, check=True).stdout
    assert told.split() in (["True", "False"], ["False", str(arithmetic.exact("cpu"))])


def test_float64_and_mixtures_are_correctly_rounded():
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(100_000, generator=generator) * 0.02
    step = torch.randn(100_000, generator=generator) * 1e-3
    for kinds in [
        (torch.float16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float16),
    ]:
        theta1, theta0 = (base + step).to(kinds[0]), base.to(kinds[1])
        for dtype in (torch.float32, kinds[0]):
            distance = ordered(expo(theta1, theta0, 0.7, dtype)) - ordered(
                correctly_rounded(theta1, theta0, 0.7, dtype)
            )
            assert (distance != 0).float().mean() <= 1e-3
            assert distance.abs().max() <= 1
    theta1, theta0 = (base + step).double(), base.double()
    assert torch.allclose(expo(theta1, theta0, 0.7), theta1 + 0.7 * (theta1 - theta0), rtol=1e-14, atol=1e-17)


def any_bits(dtype, seed, count):
    """Elements of every kind: random bit patterns, so subnormals, huge values, NaN with payloads and Inf too."""
    generator = torch.Generator().manual_seed(seed)
    limits = torch.iinfo(INTS[dtype])
    values = torch.randint(limits.min, limits.max + 1, (count,), generator=generator, dtype=torch.int64)
    return values.to(INTS[dtype]).view(dtype)


def near(dtype, seed, count):
    generator = torch.Generator().manual_seed(seed)
    theta0 = (torch.randn(count, generator=generator) * 0.02).to(dtype)
    return (theta0.float() + torch.randn(count, generator=generator) * 1e-3).to(dtype), theta0


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*INTS]), st.integers(0, 10**6), st.integers(1, 700), st.data(), ALPHAS)
def test_chunks_never_change_a_bit(dtype, seed, count, data, alpha):
    theta1, theta0 = near(dtype, seed, count)
    special = data.draw(st.integers(0, count - 1))
    theta1[special] = theta0[special] = float("nan")  # judging one element must not touch its neighbours
    whole = expo(theta1, theta0, alpha)
    cut = data.draw(st.integers(0, count))
    parts = [expo(theta1[:cut], theta0[:cut], alpha), expo(theta1[cut:], theta0[cut:], alpha)]
    assert torch.equal(bits(whole), bits(torch.cat(parts)))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*INTS]), st.integers(0, 10**6), st.integers(1, 300), ALPHAS)
def test_equal_elements_keep_their_bits(dtype, seed, count, alpha):
    theta = any_bits(dtype, seed, count)
    theta[0] = -0.0
    assert torch.equal(bits(expo(theta, theta.clone(), alpha)), bits(theta))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*INTS]), st.integers(0, 10**6), st.integers(1, 300))
def test_alpha_0_is_theta1_and_alpha_minus_1_is_theta0(dtype, seed, count):
    theta1, theta0 = any_bits(dtype, seed, count), any_bits(dtype, seed + 1, count)
    assert torch.equal(bits(expo(theta1, theta0, 0.0)), bits(theta1))
    assert torch.equal(bits(expo(theta1, theta0, -1.0)), bits(theta0))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 300), ALPHAS)
def test_bfloat16_compute_repeats_the_authors_arithmetic(seed, count, alpha):
    t1, t0 = near(torch.bfloat16, seed, count)
    t1[: count // 3] = t0[: count // 3]
    t1[0] = t0[0] = -0.0
    expected = t1 + alpha * (t1 - t0)
    assert torch.equal(bits(expo(t1, t0, alpha, compute="bfloat16")), bits(expected))


def test_bfloat16_compute_of_other_types_rounds_them_first_as_loading_in_bf16_does():
    t1, t0 = near(torch.float16, 3, 1000)
    b1, b0 = t1.bfloat16(), t0.bfloat16()
    assert torch.equal(expo(t1, t0, 0.3, torch.bfloat16, compute="bfloat16"), b1 + 0.3 * (b1 - b0))


@pytest.mark.parametrize("dtype", [*INTS])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_or_inf_in_one_model_is_refused(dtype, value):
    for sides in (0, 1):
        theta = list(near(dtype, 5, 100))
        theta[sides][17] = value
        with pytest.raises(PairError, match=r"tensor w: 1 elements are NaN or Inf in one model only"):
            expo(*theta, 0.3)
    one, other = near(dtype, 5, 100)
    one[3], other[3] = math.inf, -math.inf
    with pytest.raises(PairError, match="one model only"):
        expo(one, other, 0.3)


def test_overflow_is_an_error_or_clamped():
    theta1, theta0 = torch.tensor([6e4, 1.0]).half(), torch.tensor([5e4, 0.5]).half()
    with pytest.raises(PairError, match=r"tensor w: 1 elements overflow float16 at alpha 1; take a smaller"):
        expo(theta1, theta0, 1.0)
    assert expo(theta1, theta0, 1.0, overflow="clamp").tolist() == [65504.0, 1.5]
    assert expo(theta1, theta0, 1.0, torch.float32).tolist() == [70016.0, 1.5]
    with pytest.raises(PairError, match="overflow float16"):
        expo(torch.tensor([7e4]), torch.tensor([7e4]), 0.3, torch.float16)


@pytest.mark.parametrize("value", [131072.0, 2.0**20, 2.0**127, -3e38])
def test_what_is_far_too_large_for_float16_does_not_become_a_small_number(value):
    theta = torch.tensor([value, 1.0])
    with pytest.raises(PairError, match="1 elements overflow float16"):
        expo(theta, theta.clone(), 0.3, torch.float16)
    assert expo(theta, theta.clone(), 0.3, torch.float16, overflow="clamp").tolist() == [
        math.copysign(65504.0, value),
        1.0,
    ]


def test_huge_differences_do_not_overflow_on_the_way():
    theta1, theta0 = torch.tensor([3e38]).bfloat16(), torch.tensor([-3e38]).bfloat16()
    assert expo(theta1, theta0, -0.5).item() == 0.0


def test_empty_and_unaligned_tensors():
    empty = torch.empty(0, dtype=torch.bfloat16)
    assert expo(empty, empty, 0.3).numel() == 0
    assert tensor_of(memoryview(b""), "F32").numel() == 0
    data = bytearray(b"x" + np.arange(5, dtype=np.float32).tobytes())
    assert tensor_of(memoryview(data)[1:], "F32").tolist() == [0, 1, 2, 3, 4]


def test_tensors_that_do_not_lie_in_one_piece_are_refused():
    apart = torch.ones(10)[::2]
    for theta1, theta0 in ((apart, torch.ones(5)), (torch.ones(5), torch.ones(4))):
        with pytest.raises(ValueError, match="contiguous tensors of equal length"):
            expo(theta1, theta0, 0.3)


def test_effect_counts_what_moved():
    theta1, theta0 = torch.tensor([1.0, 2.0, 3.0, -0.0]), torch.tensor([0.5, 2.0, 4.0, -0.0])
    theta2s = [expo(theta1, theta0, alpha).double().numpy() for alpha in (2.0, 0.0)]
    pair = [each.double().numpy() for each in (theta1, theta0)]
    assert list(effects(theta2s, *pair)) == [(2, 1.25, 2.5, 14.0), (0, 1.25, 0.0, 14.0)]
    special = np.array([math.nan, math.inf, 1.0])
    assert list(effects([special], special, special)) == [(0, 0.0, 0.0, 1.0)]
