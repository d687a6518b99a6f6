//! Rows of floats: those of the doubles that make sense, and what is awkward about rounding to
//! fewer bits.

#![expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what makes the terms")]

use super::data::{self, Random};

/// Makes a row of the given length.
pub(super) type Kind = fn(usize, &mut Random) -> Vec<f32>;

fn narrowed(row: &[f64]) -> Vec<f32> {
    row.iter().map(|x| *x as f32).collect()
}

pub(super) fn uniform(n: usize, random: &mut Random) -> Vec<f32> {
    narrowed(&data::uniform(n, random))
}

pub(super) fn centred(n: usize, random: &mut Random) -> Vec<f32> {
    narrowed(&data::centred(n, random))
}

pub(super) fn z_scored(n: usize, random: &mut Random) -> Vec<f32> {
    narrowed(&data::z_scored(n, random))
}

pub(super) fn prices(n: usize, random: &mut Random) -> Vec<f32> {
    narrowed(&data::prices(n, random))
}

/// Whole numbers, whose sums have more than 24 bits and so lie in the middle between two floats
/// every so often.
pub(super) fn integers(n: usize, random: &mut Random) -> Vec<f32> {
    (0..n).map(|_| (random.bits() >> 46) as f32 + 2f32.powi(21)).collect()
}

/// Magnitudes over some sixty binades, so that the sum as a double is not exact.
pub(super) fn wide(n: usize, random: &mut Random) -> Vec<f32> {
    (0..n).map(|_| (random.sign() * random.unit() * random.power(-60, 0)) as f32).collect()
}

/// Condition 1 to 10^30 (2^100).
fn condition(n: usize, random: &mut Random) -> Vec<f32> {
    let bits = i32::try_from(random.below(100)).expect("small");
    narrowed(&data::conditioned(n, bits, random))
}

fn any_bits(n: usize, random: &mut Random) -> Vec<f32> {
    (0..n).map(|_| random.any_finite_f32()).collect()
}

/// Hides `terms`, whose sum is what matters, among zeros and pairs that cancel.
pub(super) fn hidden(terms: &[f32], n: usize, size: f32, random: &mut Random) -> Vec<f32> {
    let mut row = terms.to_vec();
    row.truncate(n);
    while row.len() + 2 <= n {
        let x = random.sign() as f32 * random.unit() as f32 * size;
        row.extend([x, -x]);
    }
    row.resize(n, -0.0);
    random.shuffle(&mut row);
    row
}

/// `2^k`, subnormal or normal.
pub(super) fn power(k: i32) -> f32 {
    2f64.powi(k) as f32
}

/// Terms whose exact sum is the middle between `x` and the next larger float (if `x` is normal and
/// its exponent above that of the smallest, so that half its ulp is a float), or for the largest
/// float the threshold of overflow.
pub(super) fn middle(x: f32) -> [f32; 2] {
    let exponent = i32::try_from(x.to_bits() >> 23 & 0xff).expect("eight bits");
    [x, power(exponent - 151).copysign(x)]
}

/// The middle between two floats of any exponent, or that plus or minus as little as a float can
/// be, or more.
fn middles(n: usize, random: &mut Random) -> Vec<f32> {
    let x = f32::from_bits(
        (random.any_finite_f32().to_bits() & 0x807f_ffff) | ((random.below(252) as u32 + 2) << 23),
    );
    let [x, half] = middle(x);
    let exponent = i32::try_from(x.to_bits() >> 23 & 0xff).expect("eight bits") - 127;
    let nudge = if exponent - 25 > -149 { random.power(-149, exponent - 24) as f32 } else { 0.0 };
    let nudge = [0.0, nudge, -nudge, f32::from_bits(1), -f32::from_bits(1)][random.below(5)];
    let size = power(exponent) * random.power(-60, 0) as f32;
    hidden(&[x, half, nudge], n, size, random)
}

/// `f32::MAX` plus or minus half an ulp, where overflow begins, and a nudge to either side of it.
fn edge_of_overflow(n: usize, random: &mut Random) -> Vec<f32> {
    let (half, sign) = (power(103), random.sign() as f32);
    let step = [half, half, half, -half, 0.0, 2.0 * half][random.below(6)];
    let nudge =
        [0.0, random.power(-149, 103) as f32, -random.power(-149, 103) as f32][random.below(3)];
    let terms = [f32::MAX, step, nudge].map(|x| x * sign);
    hidden(&terms, n, [0.0, 1.0, f32::MAX][random.below(3)], random)
}

fn subnormals(n: usize, random: &mut Random) -> Vec<f32> {
    (0..n)
        .map(|_| {
            f32::from_bits((random.bits() >> (41 + random.below(23))) as u32) * random.sign() as f32
        })
        .collect()
}

/// Small sums of large terms: the sum is subnormal, or just not.
fn cancelled_to_subnormals(n: usize, random: &mut Random) -> Vec<f32> {
    let few = subnormals(3, random);
    let size = random.power(-149, 100) as f32;
    hidden(&few, n, size, random)
}

fn zeros(n: usize, random: &mut Random) -> Vec<f32> {
    let only_negative = random.below(2) == 0;
    (0..n).map(|_| if only_negative { -0.0 } else { 0.0 * random.sign() as f32 }).collect()
}

fn with_nan(n: usize, random: &mut Random) -> Vec<f32> {
    let mut row = centred(n, random);
    if n > 0 {
        // Every sign, quiet or signalling, any payload.
        let nan = f32::from_bits(random.bits() as u32 | 0x7f80_0001);
        row[random.below(n)] = nan;
        row[random.below(n)] = [nan, f32::INFINITY, 1.0][random.below(3)];
    }
    row
}

fn with_infinities(n: usize, random: &mut Random) -> Vec<f32> {
    let mut row = if random.below(2) == 0 { uniform(n, random) } else { vec![f32::MAX; n] };
    let always = random.sign() as f32 * f32::INFINITY;
    for _ in 0..n.min(3) {
        row[random.below(n)] = [always, always, always, -always][random.below(4)];
    }
    row
}

fn largest(n: usize, random: &mut Random) -> Vec<f32> {
    (0..n).map(|_| f32::MAX * random.sign() as f32).collect()
}

pub(super) const KINDS: &[(&str, Kind)] = &[
    ("uniform", uniform),
    ("centred", centred),
    ("z-scored", z_scored),
    ("prices", prices),
    ("integers", integers),
    ("wide", wide),
    ("condition", condition),
    ("any bits", any_bits),
    ("middles", middles),
    ("edge of overflow", edge_of_overflow),
    ("subnormals", subnormals),
    ("cancelled to subnormals", cancelled_to_subnormals),
    ("zeros", zeros),
    ("with NaN", with_nan),
    ("with infinities", with_infinities),
    ("largest", largest),
];
