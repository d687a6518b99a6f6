//! The public functions of slices: [`exact_sum`] and others for one row, and for consecutive rows.
//!
//! They choose the kernels, check that two slices match, and do no arithmetic. `lib.rs` exports
//! them.

use super::Kernels;

/// The double nearest the exact sum of `values`, ties to even: correctly rounded, like Python's
/// `math.fsum`, at the speed of memory.
///
/// The exact sum has one nearest double, so the bits do not depend on the order of the values, the
/// machine, its vector instructions, or the rounding mode and flush-to-zero setting of the calling
/// thread.
///
/// Unlike `math.fsum`, partial sums may overflow: `[1e308, 1e308, -1e308]` gives `1e308`. As with
/// IEEE 754 addition:
///
/// | values | sum |
/// |---|---|
/// | the exact sum rounds past `f64::MAX` | infinity of its sign |
/// | a NaN, or both infinities | NaN, always the same one: positive, quiet, no payload |
/// | infinities of one sign | that infinity |
/// | none, only zeros of either sign, or an exact sum of zero | `+0.0` |
///
/// ```
/// # use rowfork::exact_sum;
/// let tenths = [0.1; 10];
/// assert_eq!(exact_sum(&tenths), 1.0);
/// assert_ne!(tenths.iter().sum::<f64>(), 1.0);
///
/// assert_eq!(exact_sum(&[1e100, 1.0, -1e100]), 1.0);
/// ```
///
/// # Method
/// There are three tiers, each of which gives an answer only if it is proved.
///
/// 1. Two running sums start from numbers so large that an addition to them is exact but for a
///    remainder, which the second takes from the first (Rump, Ogita and Oishi, "Accurate
///    floating-point summation part I", 2008; Demmel and Nguyen, "Fast reproducible floating-point
///    summation", 2013). If the second drops nothing, as with practically all ordinary data, their
///    sum is exact and is rounded once. Otherwise a bound of what it dropped decides whether the
///    rounding is certain.
/// 2. Three running sums do the same. Their rounding goes by way of one to odd (Boldo and
///    Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
/// 3. Fixed point spans the whole range of doubles (Kulisch; Neal, "Fast exact summation using
///    small and large superaccumulators", 2015).
///
/// # Fork safety
/// Safe in kernels of rowfork's operations. The first call in a process reads `ROWFORK_ISA` from
/// the environment, under a lock that another thread may hold while the program forks by itself:
/// such a program calls this once before.
#[must_use]
pub fn exact_sum(values: &[f64]) -> f64 {
    Kernels::get().sum(values)
}

/// The double nearest the exact mean of `values`, ties to even: their exact sum over their number,
/// rounded once.
///
/// The sum may be beyond the range of doubles, and the mean subnormal. As with
/// [`exact_sum`] the bits depend on nothing but the values, not on their order
/// either.
///
/// | values | mean |
/// |---|---|
/// | none | NaN, as NumPy's |
/// | a NaN, or both infinities | NaN, always the same one: positive, quiet, no payload |
/// | infinities of one sign | that infinity |
/// | an exact sum of zero | `+0.0` |
///
/// ```
/// # use rowfork::exact_mean;
/// assert_eq!(exact_mean(&[0.1; 10]), 0.1);
/// assert_eq!(exact_mean(&[f64::MAX, f64::MAX, 1.0]), f64::MAX / 1.5);
/// ```
///
/// # Method
/// The sum by the tiers of [`exact_sum`], its quotient with the remainder, and a
/// bound of what is missing. Where that leaves more than one double, fixed point and long division.
/// The proofs are in `src/kernel/anchored.rs` and `src/kernel/interval.rs`.
///
/// # Fork safety
/// As for [`exact_sum`].
#[must_use]
pub fn exact_mean(values: &[f64]) -> f64 {
    one(|kernel, mean| kernel.row_means(values, values.len(), mean))
}

/// The double nearest the exact dot product of `a` and `b`, the sum of `a[j] * b[j]`, ties to even:
/// no product and no sum is rounded before.
///
/// Neither overflow nor underflow on the way matters, and the bits depend on nothing but the pairs.
///
/// | a product or the sum | dot product |
/// |---|---|
/// | the exact sum rounds past `f64::MAX` | infinity of its sign |
/// | infinity times zero, a NaN, or products that are infinities of both signs | NaN, always the same one |
/// | products that are infinities of one sign | that infinity |
/// | none, or an exact sum of zero | `+0.0` |
///
/// ```
/// # use rowfork::exact_dot;
/// assert_eq!(exact_dot(&[1e200, 3.0, 1e200], &[1e200, 0.1, -1e200]), 3.0 * 0.1);
/// assert_eq!(exact_dot(&[0.1, 0.1], &[0.1, -0.1]), 0.0);
/// ```
///
/// # Method
/// T. Ogita, S. Rump, S. Oishi, "Accurate sum and dot product" (2005), with a bound of the error
/// that is measured; fixed point where that leaves more than one double.
///
/// # Panics
/// If the lengths differ.
///
/// # Fork safety
/// As for [`exact_sum`].
#[must_use]
pub fn exact_dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "two slices of one length are needed");
    one(|kernel, dot| kernel.row_dots(a, b, dot))
}

/// The double nearest the exact weighted mean of `values`, ties to even: their exact dot product
/// with `weights` over the exact sum of these, rounded once.
///
/// Weights may be of either sign, and need not have the sum 1.
///
/// | values and weights | weighted mean |
/// |---|---|
/// | the weights have the sum zero, as has the dot product; or there are none | NaN |
/// | the weights alone have the sum zero | infinity of the sign of the dot product (NumPy's `average` raises `ZeroDivisionError`) |
/// | the dot product is zero | `+0.0` |
/// | NaN or infinities | the quotient of [`exact_dot`] and [`exact_sum`], by IEEE 754; NaN is always the same one |
///
/// ```
/// # use rowfork::exact_weighted_mean;
/// assert_eq!(exact_weighted_mean(&[1.5, 10.0], &[2.0, 1.0]), 13.0 / 3.0);
/// assert_eq!(exact_weighted_mean(&[0.1; 3], &[0.1, 0.2, 0.3]), 0.1);
/// ```
///
/// # Panics
/// If the lengths differ.
///
/// # Fork safety
/// As for [`exact_sum`].
#[must_use]
pub fn exact_weighted_mean(values: &[f64], weights: &[f64]) -> f64 {
    assert_eq!(values.len(), weights.len(), "a weight for every value is needed");
    one(|kernel, mean| kernel.row_weighted_means(values, kernel.weigh(weights), mean))
}

/// The plain sum of `values`, rounded at every addition, in an order that is fixed: the same bits
/// on every machine, though not those of [`exact_sum`], and not for another order
/// of the values.
///
/// Sixteen lanes begin with +0.0. Sixteen values at a time are added to them, value `i` of these to
/// lane `i`. Of the values that are left, eight, if there are as many, are added to lanes 0 to 7,
/// then four to lanes 0 to 3, two to lanes 0 and 1, and one to lane 0. Then lane `i + 8` is added
/// to lane `i` for `i < 8`, lane `i + 4` to lane `i` for `i < 4`, and so on until one lane is left.
/// A sum that is NaN is always the same one.
///
/// The error is at most some `n / 16 + 8` times 2^-53 of the sum of the magnitudes; partial sums
/// may overflow.
///
/// ```
/// # use rowfork::fast_sum;
/// assert_eq!(fast_sum(&[0.5; 1000]), 500.0);
/// assert_eq!(fast_sum(&[1e16, 1.0, 2.0, -1e16]), 2.0); // exactly it is 3
/// ```
///
/// # Fork safety
/// As for [`exact_sum`].
#[must_use]
pub fn fast_sum(values: &[f64]) -> f64 {
    one(|kernel, sum| kernel.row_plain_sums(values, values.len(), sum))
}

/// [`exact_mean`] of each row of a slice, several at a time: for programs that bring threads of
/// their own, as [`exact_row_sums`](crate::exact_row_sums) is.
///
/// `rows` holds `means.len()` rows of `n_columns` doubles, one after the other.
///
/// # Panics
/// If `rows.len()` is not `n_columns * means.len()`.
///
/// ```
/// let mut means = [0.0; 2];
/// rowfork::exact_row_means(&[0.1, 0.1, 0.1, 1.0, 2.0, 6.0], 3, &mut means);
/// assert_eq!(means, [0.1, 3.0]);
/// ```
pub fn exact_row_means(rows: &[f64], n_columns: usize, means: &mut [f64]) {
    Kernels::get().row_means(rows, n_columns, means);
}

/// [`exact_dot`] of each row of a slice and `vector`, several at a time: for programs that bring
/// threads of their own.
///
/// `rows` holds `dots.len()` rows of `vector.len()` doubles, one after the other.
///
/// # Panics
/// If `rows.len()` is not `vector.len() * dots.len()`.
///
/// ```
/// let mut dots = [0.0; 2];
/// rowfork::exact_row_dots(&[1.0, 2.0, 3.0, 4.0], &[10.0, 1.0], &mut dots);
/// assert_eq!(dots, [12.0, 34.0]);
/// ```
pub fn exact_row_dots(rows: &[f64], vector: &[f64], dots: &mut [f64]) {
    Kernels::get().row_dots(rows, vector, dots);
}

/// [`fast_sum`] of each row of a slice: for programs that bring threads of their own.
///
/// `rows` holds `sums.len()` rows of `n_columns` doubles, one after the other.
///
/// # Panics
/// If `rows.len()` is not `n_columns * sums.len()`.
///
/// ```
/// let mut sums = [0.0; 2];
/// rowfork::fast_row_sums(&[1.0, 2.0, 3.0, 4.0], 2, &mut sums);
/// assert_eq!(sums, [3.0, 7.0]);
/// ```
pub fn fast_row_sums(rows: &[f64], n_columns: usize, sums: &mut [f64]) {
    Kernels::get().row_plain_sums(rows, n_columns, sums);
}

/// The instructions that this process sums with: for programs that measure.
#[cfg(feature = "failpoints")]
#[doc(hidden)]
#[must_use]
pub fn instructions() -> &'static str {
    Kernels::get().isa().name()
}

/// The tier that settles the exact sum of these values, 1 to 3: for benches that tell how many rows
/// get that far.
#[cfg(feature = "failpoints")]
#[doc(hidden)]
#[must_use]
pub fn tier_of_exact_sum(values: &[f64]) -> usize {
    (1..=2).find(|tier| Kernels::get().tier(*tier, values).is_some()).unwrap_or(3)
}

/// The result of one row, by a kernel for blocks of rows.
fn one(row: impl FnOnce(Kernels, &mut [f64])) -> f64 {
    let mut out = [0.0];
    row(Kernels::get(), &mut out);
    out[0]
}
