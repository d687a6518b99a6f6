//! Ratios of rates, measured in pairs and in turns.

use std::time::Instant;

/// Memory is in a slow phase while bytes are read at no more than this rate, in GB/s: virtual
/// machines share theirs.
const SLOW_PHASE: f64 = 50.0;

/// Fewer quadruples of a phase say nothing of it.
const LEAST_QUADRUPLES: usize = 3;

/// How claims are measured.
pub(crate) struct Pairs<'a> {
    /// What both sides of a claim read, so that rates can be told.
    pub(crate) bytes: usize,
    /// Each runs A B B A: drift of the machine cancels within it.
    pub(crate) quadruples: usize,
    /// Reads the bytes and no more, once a quadruple: that tells the phase.
    pub(crate) ceiling: &'a dyn Fn(),
    /// Only claims with this in their names.
    pub(crate) only: Option<&'a str>,
}

struct Quadruple {
    ceiling: f64,
    a: f64,
    b: f64,
}

impl Pairs<'_> {
    /// Prints the rate of A to that of B: median and quartiles of the ratios, and the medians of
    /// both in GB/s, by phase.
    pub(crate) fn measure(&self, name: &str, a: &mut dyn FnMut(), b: &mut dyn FnMut()) {
        if self.only.is_some_and(|only| !name.contains(only)) {
            return;
        }
        a();
        b();
        let quadruples: Vec<Quadruple> =
            (0..self.quadruples).map(|_| self.quadruple(a, b)).collect();
        let (slow, fast): (Vec<_>, Vec<_>) =
            quadruples.into_iter().partition(|one| one.ceiling <= SLOW_PHASE);
        let both_count = slow.len() >= LEAST_QUADRUPLES && fast.len() >= LEAST_QUADRUPLES;
        let most = if slow.len() >= fast.len() { (&slow, "slow") } else { (&fast, "fast") };
        let least = if slow.len() >= fast.len() { (&fast, "fast") } else { (&slow, "slow") };
        print_line(name, most.0, most.1);
        if both_count {
            print_line(name, least.0, least.1);
        }
    }

    fn quadruple(&self, a: &mut dyn FnMut(), b: &mut dyn FnMut()) -> Quadruple {
        let rate = |seconds: f64| self.bytes as f64 / seconds / 1e9;
        let ceiling = rate(seconds(&mut || (self.ceiling)()));
        let (a1, b1, b2, a2) = (seconds(a), seconds(b), seconds(b), seconds(a));
        Quadruple { ceiling, a: rate(f64::midpoint(a1, a2)), b: rate(f64::midpoint(b1, b2)) }
    }
}

fn print_line(name: &str, quadruples: &[Quadruple], phase: &str) {
    let quartile = |which: usize, value: &dyn Fn(&Quadruple) -> f64| {
        let mut values: Vec<f64> = quadruples.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[(which * (values.len() - 1) + 2) / 4]
    };
    let [low, median, high] = [1, 2, 3].map(|which| quartile(which, &|one| one.a / one.b));
    let (a, b) = (quartile(2, &|one| one.a), quartile(2, &|one| one.b));
    let n = quadruples.len();
    println!(
        "{name:52} {median:.3} ({low:.3} to {high:.3})  {a:5.1} to {b:5.1} GB/s, {phase} memory, n = {n}"
    );
}

fn seconds(work: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
