//! The naive judge: big integers, one rounding, and no step in common with the code it judges.

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

/// A finite double as a multiple of 2^-1074.
pub(super) fn units(x: f64) -> BigInt {
    let bits = x.abs().to_bits();
    let (exponent, fraction) = (bits >> 52, bits & ((1 << 52) - 1));
    let magnitude =
        if exponent == 0 { BigInt::from(fraction) } else { BigInt::from(fraction + (1 << 52)) << (exponent - 1) };
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
    for x in [0.0, f64::from_bits(1), f64::MIN_POSITIVE, 1.0, 0.1, 1e300, f64::MAX, -0.1, -f64::MAX] {
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
            assert_eq!(exact_sum(&[a, -near]).to_bits(), (a - near + 0.0).to_bits(), "{a:e} - {near:e}");
        }
    }
}
