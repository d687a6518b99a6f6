//! Claims about speed, each measured in pairs and in turns (A B B A), so that a slow moment of the
//! machine cancels. The controls are A against A: what differs by less than they do says nothing.
//! Every answer is checked before it is timed.
//!
//! cargo run --profile dist --example abba -- [--rows N --cols N] [--quadruples N] [--only TEXT]
//!
//! `ROWFORK_ISA=avx2` (or `scalar`) for other instructions than the best. Without a shape those of
//! docs/FIGURES.md.

#[path = "../benches/rivals/mod.rs"]
mod rivals;
mod support;

use ndarray::{Ix1, Ix2};
use rivals::{
    Ceiling, DATA, Data, Pairs, is_right, ndarray_serial, rayon_ndarray, rayon_slices,
    threads_exact,
};
use rowfork::{Pool, SharedArray};
use support::{Options, rows_that_fit};

const USAGE: &str = "abba [--rows N --cols N] [--quadruples N] [--only TEXT]";

/// 1 GiB each, in rows of every length.
const SHAPES: [(usize, usize); 4] =
    [(131_072, 1024), (16_384, 8192), (1_342_177, 100), (16_777_216, 8)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::from_args(USAGE, &["--rows", "--cols", "--quadruples", "--only"]);
    let asked = std::env::var("ROWFORK_ISA").unwrap_or_default();
    if !asked.is_empty() && asked != rowfork::instructions() {
        return Err(format!(
            "ROWFORK_ISA={asked}: this processor has {} at best",
            rowfork::instructions()
        )
        .into());
    }
    let shape = (options.number("--rows"), options.number("--cols"));
    let shapes = match shape {
        (Some(n_rows), Some(n_columns)) => vec![(n_rows.max(1), n_columns.max(1))],
        (None, None) => SHAPES.to_vec(),
        _ => return Err(format!("--rows and --cols go together\nusage: {USAGE}").into()),
    };
    println!("{} by {} threads or workers", rowfork::instructions(), rayon::current_num_threads());
    // While there is next to nothing to copy.
    let pool = Pool::builder().workers(rayon::current_num_threads()).build()?;
    for (n_rows, n_columns) in shapes {
        // Two matrices at a time, and what is left to others.
        let n_rows = rows_that_fit(n_rows * 2, n_columns * 8).div_ceil(2);
        claims(
            &pool,
            n_rows,
            n_columns,
            options.count("--quadruples", 51),
            options.text("--only"),
        )?;
    }
    Ok(())
}

/// A matrix whose row sums everybody gets right.
fn placed(
    pool: &Pool,
    data: Data,
    n_rows: usize,
    n_columns: usize,
) -> rowfork::Result<SharedArray<f64, Ix2>> {
    let matrix = SharedArray::from_shape_fn(None, (n_rows, n_columns), |(i, j)| {
        (data.element)(i, j, n_columns)
    })?;
    let rows = matrix.view();
    let (mut exact, mut sums) = (vec![f64::NAN; n_rows], vec![0.0; n_rows]);
    threads_exact(&rows, &mut exact);
    let is_exact = |(row, sum): (&[f64], &f64)| rowfork::exact_sum(row).to_bits() == sum.to_bits();
    assert!(matrix.as_slice().chunks_exact(n_columns).zip(&exact).all(is_exact));
    for rival in [ndarray_serial, rayon_ndarray, rayon_slices] {
        assert!(is_right(rival, &rows, &mut sums, &exact));
    }
    assert_eq!(rowfork::fork().row_sums(&matrix)?.as_slice(), exact);
    assert_eq!(pool.row_sums(&matrix)?.as_slice(), exact);
    Ok(matrix)
}

fn claims(
    pool: &Pool,
    n_rows: usize,
    n_columns: usize,
    quadruples: usize,
    only: Option<&str>,
) -> rowfork::Result<()> {
    let uniform = placed(pool, DATA[0], n_rows, n_columns)?;
    let rows = uniform.view();
    // All outputs in segments: what the caller holds of its own costs a fork, and is copied when it
    // is next written.
    let (mut sums, mut others) =
        (SharedArray::zeros(None, n_rows)?, SharedArray::zeros(None, n_rows)?);
    let (mut forked, mut again) =
        (SharedArray::<f64, Ix1>::zeros(None, n_rows)?, SharedArray::zeros(None, n_rows)?);
    let mut pooled = SharedArray::<f64, Ix1>::zeros(None, n_rows)?;
    let sums = sums.view_mut().into_slice().expect("C order");
    let others = others.view_mut().into_slice().expect("C order");
    let fork = rowfork::fork().workers(rayon::current_num_threads());

    let (bytes, elements) = (n_rows * n_columns * 8, uniform.as_slice());
    let way = Ceiling::of(elements);
    println!("\n{n_rows} x {n_columns}, {:?}; the ceiling is {way:?}", uniform.pages());
    let pairs = Pairs { bytes, quadruples, ceiling: &|| way.read(elements), only };
    let threads = &mut || threads_exact(&rows, sums);
    let by_fork = &mut || drop(fork.row_sums_into(&uniform, &mut forked).expect("sums"));
    let by_pool = &mut || drop(pool.row_sums_into(&uniform, &mut pooled).expect("sums"));
    pairs.measure("control: exact by threads, to itself", threads, &mut || {
        threads_exact(&rows, others);
    });
    pairs.measure("control: exact by fork, to itself", by_fork, &mut || {
        drop(fork.row_sums_into(&uniform, &mut again).expect("sums"));
    });
    pairs.measure("control: exact by pool, to itself", by_pool, &mut || {
        drop(pool.row_sums_into(&uniform, &mut again).expect("sums"));
    });
    pairs.measure("exact by threads, to the ceiling", threads, &mut || way.read(elements));
    pairs.measure("exact by threads, to rayon + ndarray", threads, &mut || {
        rayon_ndarray(&rows, others);
    });
    pairs.measure("exact by threads, to rayon + slices", threads, &mut || {
        rayon_slices(&rows, others);
    });
    pairs.measure("exact by fork, to threads", by_fork, threads);
    pairs.measure("exact by fork, to rayon + ndarray", by_fork, &mut || {
        rayon_ndarray(&rows, others);
    });
    pairs.measure("exact by pool, to threads", by_pool, threads);
    pairs.measure("exact by pool, to rayon + ndarray", by_pool, &mut || {
        rayon_ndarray(&rows, others);
    });
    pairs.measure("exact by pool, to fork", by_pool, by_fork);
    for data in &DATA[1..] {
        let what = format!("exact by threads, {} to uniform rows", data.name);
        if only.is_none_or(|only| what.contains(only)) {
            let hard = placed(pool, *data, n_rows, n_columns)?;
            pairs.measure(&what, &mut || threads_exact(&hard.view(), others), threads);
        }
    }
    Ok(())
}
