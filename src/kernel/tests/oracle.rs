//! The naive judge: big integers, one rounding, and no step in common with the code it judges.

use std::cmp::Ordering;

use num_bigint::{BigInt, BigUint, Sign};

/// What [`exact_sum`](crate::exact_sum) promises for `values`.
pub(super) fn exact_sum(values: &[f64]) -> f64 {
    let nan = f64::from_bits(0x7ff8_0000_0000_0000);
    if values.iter().any(|x| x.is_nan()) {
        return nan;
    }
    match (values.contains(&f64::INFINITY), values.contains(&f64::NEG_INFINITY)) {
        (true, true) => nan,
        (true, false) => f64::INFINITY,
        (false, true) => f64::NEG_INFINITY,
        (false, false) => round(&values.iter().map(|x| units(*x)).sum()),
    }
}

/// What [`exact_mean`](crate::exact_mean) promises.
pub(super) fn exact_mean(values: &[f64]) -> f64 {
    if values.is_empty() || values.iter().any(|x| !x.is_finite()) {
        return if values.is_empty() {
            f64::from_bits(0x7ff8_0000_0000_0000)
        } else {
            exact_sum(values)
        };
    }
    nearest_ratio(&values.iter().map(|x| units(*x)).sum(), &BigInt::from(values.len()))
}

/// What [`exact_dot`](crate::exact_dot) promises.
pub(super) fn exact_dot(a: &[f64], b: &[f64]) -> f64 {
    match infinite_products(a, b) {
        Some(sum) => sum,
        None => nearest_ratio(&products(a, b), &(BigInt::from(1) << 1074)),
    }
}

/// What [`exact_weighted_mean`](crate::exact_weighted_mean) promises.
pub(super) fn exact_weighted_mean(values: &[f64], weights: &[f64]) -> f64 {
    let nan = f64::from_bits(0x7ff8_0000_0000_0000);
    let finite_weights = weights.iter().all(|w| w.is_finite());
    let total: BigInt =
        if finite_weights { weights.iter().map(|w| units(*w)).sum() } else { BigInt::ZERO };
    let result = match (infinite_products(values, weights), finite_weights) {
        (Some(dot), true) => match total.sign() {
            Sign::Minus => -dot,
            _ => dot,
        },
        (None, true) if total.sign() == Sign::NoSign => match products(values, weights).sign() {
            Sign::Plus => f64::INFINITY,
            Sign::Minus => f64::NEG_INFINITY,
            Sign::NoSign => nan,
        },
        (None, true) => nearest_ratio(&products(values, weights), &total),
        // An infinite weight makes an infinite product.
        (Some(_), false) => nan,
        (None, false) => unreachable!("infinity times anything is not finite"),
    };
    if result.is_nan() { nan } else { result }
}

/// The sum of the products if a factor of one of them is not finite.
fn infinite_products(a: &[f64], b: &[f64]) -> Option<f64> {
    let pairs = a.iter().zip(b).filter(|(x, y)| !(x.is_finite() && y.is_finite()));
    let products: Vec<f64> = pairs.map(|(x, y)| x * y).collect();
    (!products.is_empty()).then(|| exact_sum(&products))
}

/// The sum of the products of finite doubles as a multiple of 2^-2148.
fn products(a: &[f64], b: &[f64]) -> BigInt {
    a.iter().zip(b).map(|(x, y)| units(*x) * units(*y)).sum()
}

/// The double nearest `a / b * 2^-1074`, ties to even: the doubles are gone through by halving,
/// nothing is divided.
pub(super) fn nearest_ratio(a: &BigInt, b: &BigInt) -> f64 {
    let (magnitude, divisor) =
        (BigInt::from(a.magnitude().clone()), BigInt::from(b.magnitude().clone()));
    if a.sign() == Sign::NoSign {
        return 0.0;
    }
    let infinity = f64::INFINITY.to_bits();
    // The bits of doubles that are not negative are in their order; past the largest comes what
    // would follow it, 2^1024.
    let times = |bits: u64| {
        &divisor
            * if bits == infinity { BigInt::from(1) << 2098 } else { units(f64::from_bits(bits)) }
    };
    let (mut low, mut high) = (0, infinity);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if times(middle) <= magnitude {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    let nearest = if low == infinity {
        infinity
    } else {
        let (below, above) = (&magnitude - times(low), times(low + 1) - &magnitude);
        match below.cmp(&above) {
            Ordering::Less => low,
            Ordering::Greater => low + 1,
            Ordering::Equal => low + low % 2,
        }
    };
    let nearest = f64::from_bits(nearest);
    if a.sign() == b.sign() { nearest } else { -nearest }
}

/// The same for floats: the `f32` nearest the exact sum.
pub(super) fn exact_sum_f32(values: &[f32]) -> f32 {
    let nan = f32::from_bits(0x7fc0_0000);
    if values.iter().any(|x| x.is_nan()) {
        return nan;
    }
    match (values.contains(&f32::INFINITY), values.contains(&f32::NEG_INFINITY)) {
        (true, true) => nan,
        (true, false) => f32::INFINITY,
        (false, true) => f32::NEG_INFINITY,
        (false, false) => round_f32(&values.iter().map(|x| units_f32(*x)).sum()),
    }
}

/// A finite float as a multiple of 2^-149.
fn units_f32(x: f32) -> BigInt {
    let bits = x.abs().to_bits();
    let (exponent, fraction) = (bits >> 23, bits & ((1 << 23) - 1));
    let magnitude = if exponent == 0 {
        BigInt::from(fraction)
    } else {
        BigInt::from(fraction + (1 << 23)) << (exponent - 1)
    };
    if x.is_sign_negative() { -magnitude } else { magnitude }
}

/// The float nearest `sum * 2^-149`, ties to even: the floats are gone through by halving, no bits
/// are shifted.
fn round_f32(sum: &BigInt) -> f32 {
    let magnitude = BigInt::from(sum.magnitude().clone());
    let infinity = f32::INFINITY.to_bits();
    // The bits of floats that are not negative are in their order; past the largest comes what
    // would follow it, 2^128.
    let units = |bits: u32| {
        if bits == infinity { BigInt::from(1) << 277 } else { units_f32(f32::from_bits(bits)) }
    };
    let (mut low, mut high) = (0, infinity);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if units(middle) <= magnitude {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    let nearest = if low == infinity {
        infinity
    } else {
        let (below, above) = (&magnitude - units(low), units(low + 1) - &magnitude);
        match below.cmp(&above) {
            Ordering::Less => low,
            Ordering::Greater => low + 1,
            Ordering::Equal => low + low % 2,
        }
    };
    let nearest = f32::from_bits(nearest);
    if sum.sign() == Sign::Minus { -nearest } else { nearest }
}

/// A finite double as a multiple of 2^-1074.
pub(super) fn units(x: f64) -> BigInt {
    let bits = x.abs().to_bits();
    let (exponent, fraction) = (bits >> 52, bits & ((1 << 52) - 1));
    let magnitude = if exponent == 0 {
        BigInt::from(fraction)
    } else {
        BigInt::from(fraction + (1 << 52)) << (exponent - 1)
    };
    if x.is_sign_negative() { -magnitude } else { magnitude }
}

/// The double nearest `sum * 2^-1074`, ties to even.
fn round(sum: &BigInt) -> f64 {
    let magnitude = sum.magnitude();
    let mut scale = magnitude.bits().saturating_sub(53);
    let mut quotient = magnitude >> scale;
    let twice_rest = (magnitude - (&quotient << scale)) << 1_u32;
    let divisor = BigUint::from(1_u32) << scale;
    if scale > 0 && (twice_rest > divisor || (twice_rest == divisor && quotient.bit(0))) {
        quotient += 1_u32;
    }
    if quotient.bits() == 54 {
        quotient >>= 1_u32;
        scale += 1;
    }
    let quotient = u64::try_from(&quotient).expect("at most 53 bits");
    // 2^53 - 1 times 2^971 is f64::MAX, and 971 is 2045 units of scale from 2^-1074.
    let nearest = if scale > 2045 {
        f64::INFINITY
    } else if quotient < 1 << 52 {
        f64::from_bits(quotient)
    } else {
        f64::from_bits(((scale + 1) << 52) | (quotient - (1 << 52)))
    };
    if sum.sign() == Sign::Minus { -nearest } else { nearest }
}

#[test]
fn the_oracle_gives_every_double_back() {
    for x in [0.0, f64::from_bits(1), f64::MIN_POSITIVE, 1.0, 0.1, 1e300, f64::MAX, -0.1, -f64::MAX]
    {
        assert_eq!(round(&units(x)).to_bits(), x.to_bits());
    }
}

#[test]
fn the_oracle_agrees_with_the_hardware_on_two_terms() {
    let mut random = super::data::Random::new(11);
    for _ in 0..20_000 {
        let (a, b) = (random.any_finite(), random.any_finite());
        assert_eq!(exact_sum(&[a, b]).to_bits(), (a + b + 0.0).to_bits(), "{a:e} + {b:e}");
        let near = a * (1.0 + random.unit());
        if near.is_finite() {
            assert_eq!(
                exact_sum(&[a, -near]).to_bits(),
                (a - near + 0.0).to_bits(),
                "{a:e} - {near:e}"
            );
        }
    }
}

#[test]
fn the_oracle_rounds_doubles_to_floats_as_the_hardware_does() {
    let mut random = super::data::Random::new(12);
    let check = |a: f32, b: f32| {
        // Of two floats the double sum may be rounded, but never to a middle that it is not: 53 >=
        // 2 * 24 + 2.
        #[expect(clippy::cast_possible_truncation, reason = "this rounding is what is compared")]
        let expected = (f64::from(a) + f64::from(b)) as f32 + 0.0;
        assert_eq!(exact_sum_f32(&[a, b]).to_bits(), expected.to_bits(), "{a:e} + {b:e}");
    };
    for _ in 0..5_000 {
        let (a, b) = (random.any_finite_f32(), random.any_finite_f32());
        check(a, b);
        check(a, -a);
        let exponent = 0x7f80_0000 & a.to_bits();
        let near = f32::from_bits(exponent | (b.to_bits() & 0x807f_ffff));
        check(a, near);
        check(a, near / 2f32.powi(24));
    }
}

#[test]
fn the_oracle_divides_and_multiplies_as_the_hardware_does() {
    let mut random = super::data::Random::new(13);
    for _ in 0..3_000 {
        let (a, b) = (random.any_finite(), random.any_finite());
        let near = b * (1.0 + random.unit());
        for (a, b) in [(a, b), (near, b), (a, 3.0), (a * 2f64.powi(-1000), b)]
            .into_iter()
            .filter(|(a, b)| *a != 0.0 && a.is_finite() && *b != 0.0)
        {
            assert_eq!(exact_weighted_mean(&[a], &[1.0]).to_bits(), (a + 0.0).to_bits(), "{a:e}");
            assert_eq!(
                nearest_ratio(&(units(a) << 1074), &units(b)).to_bits(),
                (a / b).to_bits(),
                "{a:e} / {b:e}"
            );
            assert_eq!(exact_dot(&[a], &[b]).to_bits(), (a * b).to_bits(), "{a:e} * {b:e}");
        }
    }
}
