//! Rows of every kind that is ordinary, or that once broke a summation.

/// `SplitMix64`: the same rows in every run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.bits() % n as u64).expect("below a usize")
    }

    /// Uniform in `0..1`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * 2f64.powi(-53)
    }

    pub(super) fn sign(&mut self) -> f64 {
        if self.bits() & 1 == 1 { -1.0 } else { 1.0 }
    }

    /// `2^k` with `k` in `low..high`.
    pub(super) fn power(&mut self, low: i32, high: i32) -> f64 {
        let span = usize::try_from(high - low).expect("not empty");
        2f64.powi(low + i32::try_from(self.below(span)).expect("small"))
    }

    pub(super) fn any_finite(&mut self) -> f64 {
        loop {
            let x = f64::from_bits(self.bits());
            if x.is_finite() {
                return x;
            }
        }
    }

    pub(super) fn any_finite_f32(&mut self) -> f32 {
        loop {
            #[expect(clippy::cast_possible_truncation, reason = "any 32 of the bits")]
            let x = f32::from_bits(self.bits() as u32);
            if x.is_finite() {
                return x;
            }
        }
    }

    pub(super) fn shuffle<T>(&mut self, row: &mut [T]) {
        for i in (1..row.len()).rev() {
            row.swap(i, self.below(i + 1));
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "any float will do")]
pub(super) fn single(x: f64) -> f32 {
    x as f32
}

/// Makes a row of the given length.
pub(super) type Kind = fn(usize, &mut Random) -> Vec<f64>;

pub(super) fn uniform(n: usize, random: &mut Random) -> Vec<f64> {
    (0..n).map(|_| random.unit()).collect()
}

/// A mean of zero but for rounding: what an a-priori bound certifies nothing of.
pub(super) fn centred(n: usize, random: &mut Random) -> Vec<f64> {
    let mut row = uniform(n, random);
    let mean = mean(&row);
    for x in &mut row {
        *x -= mean;
    }
    row
}

pub(super) fn z_scored(n: usize, random: &mut Random) -> Vec<f64> {
    let mut row = centred(n, random);
    let deviation = mean(&row.iter().map(|x| x * x).collect::<Vec<_>>()).sqrt().max(1e-9);
    for x in &mut row {
        *x /= deviation;
    }
    row
}

/// A walk in cents.
pub(super) fn prices(n: usize, random: &mut Random) -> Vec<f64> {
    let mut price: f64 = 100.0;
    let step = |_| {
        price = (price * (1.0 + (random.unit() - 0.5) * 0.02) * 100.0).round() / 100.0;
        price
    };
    (0..n).map(step).collect()
}

fn mean(row: &[f64]) -> f64 {
    row.iter().sum::<f64>() / row.len().max(1) as f64
}

/// Condition `2^bits`: all but one term cancel, the others are that much larger.
pub(super) fn conditioned(n: usize, bits: i32, random: &mut Random) -> Vec<f64> {
    let mut row = Vec::with_capacity(n);
    while row.len() + 2 < n {
        let x = random.sign() * random.unit() * random.power(0, bits + 1);
        row.extend([x, -x]);
    }
    row.resize_with(n, || random.unit());
    random.shuffle(&mut row);
    row
}

/// Condition 1 to 10^30 (2^100).
fn condition(n: usize, random: &mut Random) -> Vec<f64> {
    let bits = i32::try_from(random.below(100)).expect("small");
    conditioned(n, bits, random)
}

fn any_bits(n: usize, random: &mut Random) -> Vec<f64> {
    (0..n).map(|_| random.any_finite() * 2f64.powi(-12)).collect()
}

/// Hides `terms`, whose sum is what matters, among zeros and pairs that cancel.
pub(super) fn hidden(terms: &[f64], n: usize, size: f64, random: &mut Random) -> Vec<f64> {
    let mut row = terms.to_vec();
    row.truncate(n);
    while row.len() + 2 <= n {
        let x = random.sign() * random.unit() * size;
        row.extend([x, -x]);
    }
    row.resize(n, -0.0);
    random.shuffle(&mut row);
    row
}

/// A double, half its ulp, and nothing, or `2^-k` more or less, `k` to 200.
pub(super) fn tie(nudge: f64, random: &mut Random) -> [f64; 3] {
    let x = (1.0 + random.unit()) * random.sign();
    [x, 2f64.powi(-53) * random.sign(), nudge]
}

fn exact_ties(n: usize, random: &mut Random) -> Vec<f64> {
    let terms = tie(0.0, random);
    hidden(&terms, n, random.power(-60, 60), random)
}

fn near_ties(n: usize, random: &mut Random) -> Vec<f64> {
    let nudge = random.sign() * random.power(-200, -53);
    let terms = tie(nudge, random);
    hidden(&terms, n, random.power(-60, 60), random)
}

/// Ties just above a power of two and a quarter ulp below it, where the spacing of doubles changes.
fn ties_at_powers_of_two(n: usize, random: &mut Random) -> Vec<f64> {
    let step = [2f64.powi(-53), -2f64.powi(-54)][random.below(2)];
    let nudge = [0.0, random.power(-200, -54), -random.power(-200, -54)][random.below(3)];
    let (sign, scale) = (random.sign(), random.power(-700, 700));
    let terms = [1.0, step, nudge].map(|x| x * sign * scale);
    hidden(&terms, n, scale * random.power(-20, 20), random)
}

fn overflow_on_the_way(n: usize, random: &mut Random) -> Vec<f64> {
    let (small, sign) = (random.unit(), random.sign());
    let terms = [1e308, 1e308, -1e308, 1e308, -1e308, small].map(|x| x * sign);
    hidden(&terms, n, [1.0, f64::MAX][random.below(2)], random)
}

/// `f64::MAX` plus or minus an ulp, half an ulp (where overflow begins), and a nudge to either side
/// of it.
pub(super) fn edge_of_overflow(n: usize, random: &mut Random) -> Vec<f64> {
    let ulp = 2f64.powi(971);
    let step = [0.0, ulp, -ulp, ulp / 2.0, ulp / 2.0, ulp / 2.0, -ulp / 2.0][random.below(7)];
    let nudge = [0.0, random.power(-1074, 970), -random.power(-1074, 970)][random.below(3)];
    let sign = random.sign();
    let terms = [f64::MAX / 2.0, f64::MAX / 2.0, step, nudge].map(|x| x * sign);
    hidden(&terms, n, [0.0, 1.0, f64::MAX][random.below(3)], random)
}

fn subnormals(n: usize, random: &mut Random) -> Vec<f64> {
    (0..n)
        .map(|_| f64::from_bits(random.bits() >> (11 + random.below(53))) * random.sign())
        .collect()
}

/// Around the smallest normal number.
fn barely_normal(n: usize, random: &mut Random) -> Vec<f64> {
    (0..n).map(|_| random.sign() * (1.0 + random.unit()) * random.power(-1024, -1010)).collect()
}

fn zeros(n: usize, random: &mut Random) -> Vec<f64> {
    let only_negative = random.below(2) == 0;
    (0..n).map(|_| if only_negative { -0.0 } else { 0.0 * random.sign() }).collect()
}

fn with_nan(n: usize, random: &mut Random) -> Vec<f64> {
    let mut row = centred(n, random);
    if n > 0 {
        // Every sign, quiet or signalling, any payload.
        let nan = f64::from_bits(random.bits() | 0x7ff0_0000_0000_0001);
        row[random.below(n)] = nan;
        row[random.below(n)] = [nan, f64::INFINITY, 1.0][random.below(3)];
    }
    row
}

fn with_infinities(n: usize, random: &mut Random) -> Vec<f64> {
    let mut row =
        if random.below(2) == 0 { uniform(n, random) } else { overflow_on_the_way(n, random) };
    let always = random.sign() * f64::INFINITY;
    for _ in 0..n.min(3) {
        row[random.below(n)] = [always, always, always, -always][random.below(4)];
    }
    row
}

/// Sums that are exact, and cancel to zero now and then.
fn small_integers(n: usize, random: &mut Random) -> Vec<f64> {
    (0..n).map(|_| random.power(0, 3) * random.sign()).collect()
}

pub(super) const KINDS: &[(&str, Kind)] = &[
    ("uniform", uniform),
    ("centred", centred),
    ("z-scored", z_scored),
    ("prices", prices),
    ("condition", condition),
    ("any bits", any_bits),
    ("exact ties", exact_ties),
    ("near ties", near_ties),
    ("ties at powers of two", ties_at_powers_of_two),
    ("overflow on the way", overflow_on_the_way),
    ("edge of overflow", edge_of_overflow),
    ("subnormals", subnormals),
    ("barely normal", barely_normal),
    ("zeros", zeros),
    ("with NaN", with_nan),
    ("with infinities", with_infinities),
    ("small integers", small_integers),
];
