//! Input that does not fit is refused by a typed error with both numbers in it, before anything is forked.

#[path = "support/isolated.rs"]
mod isolated;

use ndarray::{Array1, Array2, ArrayD, Axis, Ix1, Ix2, IxDyn, Slice};
use nix::sys::resource::{UsageWho, getrusage};
use rowfork::{Error, Fork, Result, SharedArray, fork};

/// Page faults of all children that ever ended and were waited for: no child that ran leaves it as it was.
fn faults_of_children() -> i64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().minor_page_faults()
}

/// The error of a call, which has forked nothing.
fn refused<T>(call: impl FnOnce(Fork<'static>) -> Result<T>) -> Error {
    let before = faults_of_children();
    let Err(error) = call(fork().workers(2)) else { panic!("accepted") };
    assert_eq!(faults_of_children(), before, "forked before it was refused: {error}");
    assert!(isolated::children().is_empty());
    error
}

fn matrix(n_rows: usize) -> SharedArray<f64, Ix2> {
    SharedArray::zeros(None, (n_rows, 3)).unwrap()
}

/// `input`, `expected` and `found` of unequal numbers of rows.
fn unequal<T>(call: impl FnOnce(Fork<'static>) -> Result<T>) -> (usize, usize, usize) {
    match refused(call) {
        Error::UnequalRows { input, expected, found } => (input, expected, found),
        other => panic!("{other}"),
    }
}

/// `expected` and `found` of an output's shape.
fn misshapen<T>(call: impl FnOnce(Fork<'static>) -> Result<T>) -> (Vec<usize>, Vec<usize>) {
    match refused(call) {
        Error::WrongShape { what: "output", expected, found } => (expected, found),
        other => panic!("{other}"),
    }
}

isolated_tests! {
    fn the_check_that_nothing_was_forked_can_fail() {
        let before = faults_of_children();
        fork().workers(1).run_tasks(1, |_| 0_u8).unwrap();
        assert!(faults_of_children() > before);
    }

    fn inputs_of_unequal_numbers_of_rows_are_refused_by_every_operation() {
        let (a, mut b) = (matrix(5), SharedArray::<u8, Ix1>::zeros(None, 6).unwrap());
        let expected = (1, 5, 6);
        assert_eq!(unequal(|fork| fork.map_rows((&a, &b), |_| 0.0)), expected);
        let mut out = SharedArray::<f64, _>::zeros(None, 5).unwrap();
        assert_eq!(unequal(|fork| fork.map_rows_into((&a, &b), &mut out, |_| 0.0)), expected);
        assert_eq!(unequal(|fork| fork.transform_rows::<f64, _, _, _>((&a, &b), 2, |_, _| ())), expected);
        let mut wide = matrix(5);
        assert_eq!(unequal(|fork| fork.transform_rows_into((&a, &b), 3, &mut wide, |_, _| ())), expected);
        assert_eq!(unequal(|fork| fork.map_blocks::<f64, _, _, _>((&a, &b), 2, |_, _| ())), expected);
        assert_eq!(unequal(|fork| fork.map_blocks_into((&a, &b), 3, &mut wide, |_, _| ())), expected);
        assert_eq!(unequal(|fork| fork.fold_rows((&a, &b), 0.0, |_, _| (), |_, _| ())), expected);
        let identity = Array1::<f64>::zeros(3);
        assert_eq!(unequal(|fork| fork.fold_rows_array((&a, &b), &identity, |_, _| (), |_, _| ())), expected);
        assert_eq!(unequal(|fork| fork.update_rows_with(&mut b, &a, |_, _| ())), (1, 6, 5));
        let part = a.rows(1..4).unwrap();
        assert_eq!(unequal(|fork| fork.map_rows((&a, part), |_| 0.0)), (1, 5, 3));
    }

    fn the_third_and_the_fourth_input_are_named_by_their_number() {
        let (a, b) = (matrix(5), matrix(6));
        assert_eq!(unequal(|fork| fork.map_rows((&a, &a, &b), |_| 0.0)), (2, 5, 6));
        assert_eq!(unequal(|fork| fork.map_rows((&a, &a, &a, &b), |_| 0.0)), (3, 5, 6));
        assert_eq!(unequal(|fork| fork.map_rows((&a, &b, &b), |_| 0.0)), (1, 5, 6), "the first that differs");
        let mut array = matrix(5);
        assert_eq!(unequal(|fork| fork.update_rows_with(&mut array, (&b, &b), |_, _| ())), (1, 5, 6));
    }

    fn an_error_about_nested_inputs_says_what_is_so() {
        // "input {input} has {found} rows, and input 0 has {expected}", counted from left to right.
        let (a, b) = (matrix(5), matrix(6));
        assert_eq!(unequal(|fork| fork.map_rows(((&a, &b), &a), |_| 0.0)), (1, 5, 6));
        assert_eq!(unequal(|fork| fork.map_rows(((&a, &a), &b), |_| 0.0)), (2, 5, 6), "of ((5, 5), 6)");
        assert_eq!(unequal(|fork| fork.map_rows((&a, (&a, &b)), |_| 0.0)), (2, 5, 6), "of (5, (5, 6))");
        assert_eq!(unequal(|fork| fork.map_rows((&a, (&b, &a)), |_| 0.0)), (1, 5, 6), "of (5, (6, 5))");
    }

    fn an_update_compares_every_input_with_its_array() {
        let (mut array, a, b) = (matrix(5), matrix(5), matrix(6));
        assert_eq!(unequal(|fork| fork.update_rows_with(&mut array, (&a, &b), |_, _| ())), (2, 5, 6), "5 with (5, 6)");
        assert_eq!(unequal(|fork| fork.update_rows_with(&mut array, (&b, &a), |_, _| ())), (1, 5, 6), "5 with (6, 5)");
    }

    fn an_output_of_another_shape_is_refused_by_every_operation() {
        let m = matrix(5);
        let mut short = SharedArray::<f64, _>::zeros(None, 4).unwrap();
        assert_eq!(misshapen(|fork| fork.map_rows_into(&m, &mut short, |_| 0.0)), (vec![5], vec![4]));
        assert_eq!(misshapen(|fork| fork.row_sums_into(&m, &mut short)), (vec![5], vec![4]));
        let mut rows = SharedArray::<u8, _>::zeros(None, (6, 2, 7)).unwrap();
        let expected = (vec![5, 2, 7], vec![6, 2, 7]);
        assert_eq!(misshapen(|fork| fork.transform_rows_into(&m, (2, 7), &mut rows, |_, _| ())), expected);
        assert_eq!(misshapen(|fork| fork.map_blocks_into(&m, (2, 7), &mut rows, |_, _| ())), expected);
        let mut narrow = matrix(5);
        let too_narrow = (vec![5, 4], vec![5, 3]);
        assert_eq!(misshapen(|fork| fork.transform_rows_into(&m, 4, &mut narrow, |_, _| ())), too_narrow);
        assert_eq!(misshapen(|fork| fork.map_blocks_into(&m, 4, &mut narrow, |_, _| ())), too_narrow);
        let mut sums = SharedArray::<f64, _>::zeros(None, (3, 1)).unwrap();
        let identity = Array2::<f64>::zeros((1, 3));
        let folded = |fork: Fork<'static>| fork.fold_rows_array_into(&m, &identity, &mut sums, |_, _| (), |_, _| ());
        assert_eq!(misshapen(folded), (vec![1, 3], vec![3, 1]));
        let mut none = SharedArray::<f64, IxDyn>::zeros(None, vec![]).unwrap();
        assert_eq!(misshapen(|fork| fork.transform_rows_into(&m, IxDyn(&[]), &mut none, |_, _| ())), (vec![5], vec![]));
    }

    fn of_two_mistakes_the_one_in_the_input_is_named_first() {
        let (m, other) = (matrix(5), matrix(4));
        let none = SharedArray::copy_from(None, &ArrayD::<f64>::zeros(vec![])).unwrap();
        let mut long = SharedArray::<f64, _>::zeros(None, 9).unwrap();
        let mut wide = matrix(9);
        assert!(matches!(refused(|fork| fork.map_rows_into(&none, &mut long, |_| 0.0)), Error::NoRows { input: 0 }));
        assert!(matches!(refused(|fork| fork.row_sums_into(&none, &mut long)), Error::NoRows { input: 0 }));
        assert!(matches!(refused(|fork| fork.workers(0).row_sums_into(&m, &mut long)), Error::ZeroWorkers));
        assert_eq!(unequal(|fork| fork.map_rows_into((&m, &other), &mut long, |_| 0.0)), (1, 5, 4));
        assert_eq!(unequal(|fork| fork.transform_rows_into((&m, &other), 3, &mut wide, |_, _| ())), (1, 5, 4));
        assert_eq!(unequal(|fork| fork.map_blocks_into((&m, &other), 3, &mut wide, |_, _| ())), (1, 5, 4));
    }

    fn an_output_that_somebody_has_cut_is_refused_by_a_fold_of_any_number_of_rows() {
        let name = isolated::unique_name("cut");
        let mut out = SharedArray::<f64, _>::zeros(name.as_str(), 10_000).unwrap();
        let file = std::fs::File::options().write(true).open(format!("/dev/shm/{name}")).unwrap();
        file.set_len(8192).unwrap();
        let identity = Array1::<f64>::zeros(10_000);
        for n_rows in [0, 1, 65] {
            let m = matrix(n_rows);
            let folded = |fork: Fork<'static>| fork.fold_rows_array_into(&m, &identity, &mut out, |_, _| (), |_, _| ());
            assert!(matches!(refused(folded), Error::Truncated { actual: 8192, .. }), "{n_rows} rows");
        }
    }

    fn a_row_a_column_an_index_or_an_axis_that_there_is_not_is_named() {
        let (m, images) = (matrix(5), SharedArray::<u8, _>::zeros(None, (5, 6, 7)).unwrap());
        let beyond = |error: Error| match error {
            Error::SelectionOutOfRange { what, index, len } => (what, index, len),
            other => panic!("{other}"),
        };
        assert_eq!(beyond(refused(|_| m.columns(1..4))), ("column", 3, 3));
        assert_eq!(beyond(refused(|_| m.columns(-4..))), ("column", -4, 3));
        assert_eq!(beyond(refused(|_| m.rows(6..))), ("row", 6, 5));
        assert_eq!(beyond(refused(|_| m.rows(Slice::new(0, Some(100), 7)))), ("row", 99, 5));
        assert_eq!(beyond(refused(|_| images.slice_axis(Axis(2), 0..8))), ("index", 7, 7));
        assert_eq!(beyond(refused(|_| images.slice_axis(Axis(1), ..-7))), ("index", -7, 6));
        assert_eq!(beyond(refused(|_| images.slice_axis(Axis(3), ..))), ("axis", 3, 3));
        assert_eq!(beyond(refused(|_| images.slice_axis(Axis(usize::MAX), ..))), ("axis", isize::MAX, 3));
        assert_eq!(m.rows(5..).unwrap().n_rows(), 0, "the end itself is not beyond it");
    }

    fn an_accumulator_that_can_hold_nothing_is_refused_by_both_folds() {
        let m = matrix(5);
        let empty = |error: Error| match error {
            Error::EmptyAccumulator { shape, found, needed } => (shape, found, needed),
            other => panic!("{other}"),
        };
        assert_eq!(empty(refused(|fork| fork.fold_rows(&m, (), |(), _| (), |(), ()| ()))), (vec![], 0, 1));
        let none = Array2::<f64>::zeros((4, 0));
        let folded = refused(|fork| fork.fold_rows_array(&m, &none, |_, _| (), |_, _| ()));
        assert_eq!(empty(folded), (vec![4, 0], 0, 1));
        let mut out = SharedArray::<f64, _>::zeros(None, (4, 0)).unwrap();
        let folded = refused(|fork| fork.fold_rows_array_into(&m, &none, &mut out, |_, _| (), |_, _| ()));
        assert_eq!(empty(folded), (vec![4, 0], 0, 1));
    }

    fn an_array_without_axes_has_no_rows() {
        let mut none = SharedArray::copy_from(None, &ArrayD::<f64>::zeros(vec![])).unwrap();
        let m = matrix(1);
        let no_rows = |error: Error| match error {
            Error::NoRows { input } => input,
            other => panic!("{other}"),
        };
        assert_eq!(no_rows(refused(|fork| fork.map_rows(&none, |_| 0.0))), 0);
        assert_eq!(no_rows(refused(|fork| fork.map_rows((&m, &none), |_| 0.0))), 1);
        assert_eq!(no_rows(refused(|fork| fork.row_sums(&none))), 0);
        assert_eq!(no_rows(refused(|fork| fork.fold_rows(&none, 0.0, |_, _| (), |_, _| ()))), 0);
        assert_eq!(no_rows(refused(|fork| fork.map_blocks::<f64, _, _, _>(&none, 2, |_, _| ()))), 0);
        let mut one = matrix(1);
        assert_eq!(no_rows(refused(|fork| fork.update_rows_with(&mut one, &none, |_, _| ()))), 1);
        assert_eq!(no_rows(refused(|fork| fork.update_rows(&mut none, |_| ()))), 0);
    }

    fn a_kernel_that_assigns_a_row_of_another_shape_is_a_panic_of_its_row() {
        let m = matrix(5);
        let outcome = fork().workers(2).transform_rows::<f64, _, _, _>(&m, 2, |row, out| out.assign(&row));
        match outcome.unwrap_err() {
            Error::KernelPanicked { row: 0, message, .. } => assert!(message.contains("broadcast"), "{message}"),
            other => panic!("{other}"),
        }
    }

    fn the_text_of_a_refusal_has_both_numbers() {
        let (a, b) = (matrix(5), matrix(6));
        let text = refused(|fork| fork.map_rows((&a, &b), |_| 0.0)).to_string();
        assert!(text.contains("input 1 has 6 rows, and input 0 has 5"), "{text}");
        let text = refused(|_| a.columns(..4)).to_string();
        assert!(text.contains("column 3 asked for, but there are 3"), "{text}");
        let text = refused(|fork| fork.fold_rows(&a, (), |(), _| (), |(), ()| ())).to_string();
        assert!(text.contains("0 bytes") && text.contains("at least 1"), "{text}");
    }
}
