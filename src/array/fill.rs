//! Filling a run of elements, given in C order, from a function of the index or from an array of
//! any layout. Pure.

use ndarray::{ArrayViewD, ArrayViewMutD, Axis, Dimension, IxDyn, Slice};

/// Sets `run`, which starts at element `start` of an array of shape `dim`, to `f` of each index.
pub(super) fn fill_range<A, D: Dimension>(
    run: &mut [A],
    dim: &D,
    start: usize,
    f: &impl Fn(D::Pattern) -> A,
) {
    let mut index = unravelled(dim, start);
    for element in run {
        *element = f(index.clone().into_pattern());
        advance(&mut index, dim);
    }
}

/// The index of the element that is number `at` in C order.
fn unravelled<D: Dimension>(dim: &D, mut at: usize) -> D {
    let mut index = D::zeros(dim.ndim());
    for axis in (0..dim.ndim()).rev() {
        index[axis] = at % dim[axis];
        at /= dim[axis];
    }
    index
}

/// The next index in C order; wraps round at the end.
fn advance<D: Dimension>(index: &mut D, dim: &D) {
    for axis in (0..dim.ndim()).rev() {
        index[axis] += 1;
        if index[axis] < dim[axis] {
            return;
        }
        index[axis] = 0;
    }
}

/// Copies `run.len()` elements of `source`, from number `start` in C order on. Whole rows go to
/// ndarray in one piece, which finds the best order for their layout; the rows cut by the run's
/// ends are taken apart axis by axis.
pub(super) fn copy_range<A: Clone>(run: &mut [A], source: &ArrayViewD<'_, A>, start: usize) {
    if run.is_empty() {
        return;
    }
    if source.ndim() == 0 {
        run[0] = source[IxDyn(&[])].clone();
        return;
    }
    let row_len: usize = source.shape()[1..].iter().product();
    let (mut row, within) = (start / row_len, start % row_len);
    let mut rest = run;
    if within > 0 {
        let (head, tail) = rest.split_at_mut((row_len - within).min(rest.len()));
        copy_range(head, &source.index_axis(Axis(0), row), within);
        (row, rest) = (row + 1, tail);
    }
    let n_rows = rest.len() / row_len;
    let (whole, tail) = rest.split_at_mut(n_rows * row_len);
    let mut shape = source.raw_dim();
    shape[0] = n_rows;
    if let Ok(mut rows) = ArrayViewMutD::from_shape(shape, whole) {
        rows.assign(&source.slice_axis(Axis(0), Slice::from(row..row + n_rows)));
    }
    if !tail.is_empty() {
        copy_range(tail, &source.index_axis(Axis(0), row + n_rows), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, Dim, s};

    #[test]
    fn every_run_of_every_layout_is_copied_in_c_order() {
        let base = Array::from_shape_fn((5, 3, 4), |(i, j, k)| i * 100 + j * 10 + k);
        let thin = base.slice(s![..1, .., ..1]);
        let views = [
            base.view(),
            base.t(),
            base.slice(s![..;-1, ..;2, ..;-3]),
            thin.broadcast((4, 3, 2)).unwrap(),
            base.view().permuted_axes([1, 2, 0]),
        ];
        for view in views {
            let expected: Vec<usize> = view.iter().copied().collect();
            for start in 0..expected.len() {
                for end in start..=expected.len() {
                    let mut run = vec![usize::MAX; end - start];
                    copy_range(&mut run, &view.into_dyn(), start);
                    assert_eq!(run, expected[start..end], "{:?} {start}..{end}", view.shape());
                }
            }
        }
    }

    #[test]
    fn an_index_function_sees_every_index_of_a_run() {
        let dim = Dim([3, 2, 4]);
        let expected: Vec<_> = Array::from_shape_fn(dim, |index| index).into_iter().collect();
        for start in 0..expected.len() {
            let mut run = vec![(9, 9, 9); expected.len() - start];
            fill_range(&mut run, &dim, start, &|index| index);
            assert_eq!(run, expected[start..]);
        }
    }
}
