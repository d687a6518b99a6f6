//! Input that does not fit is refused by a typed error with both numbers in it, by both executors,
//! before anything is forked or a worker of a pool gets to see it.

use ndarray::{Array1, Array2, ArrayD, Axis, Ix1, Ix2, IxDyn, Slice};
use nix::sys::resource::{UsageWho, getrusage};
use rowfork::{Error, Policy, Pool, Result, Row, SharedArray, broadcast, fork, param};

use crate::support::executors::{Either, Executors, Place};
use crate::support::isolated::{self, isolated};

/// Page faults of all children that ever ended and were waited for: no child that ran leaves it as
/// it was.
fn faults_of_children() -> i64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().minor_page_faults()
}

/// The error of a call, which has forked nothing, and which is the same on a pool, whose workers
/// get nothing to do.
fn refused<T>(mut call: impl FnMut(Either<'_>) -> Result<T>) -> Error {
    refused_by_all(&mut |executor| call(executor).map(drop))
}

fn refused_by_all(call: &mut dyn FnMut(Either<'_>) -> Result<()>) -> Error {
    let before = faults_of_children();
    let Err(error) = call(Either::Fork(fork().workers(2))) else { panic!("accepted") };
    assert_eq!(faults_of_children(), before, "forked before it was refused: {error}");
    assert!(isolated::children().is_empty());
    for inline_below in [0, usize::MAX] {
        let pool = Pool::builder().workers(2).inline_below(inline_below).build().unwrap();
        let Err(on_pool) = call(Either::Pool(pool.call())) else {
            panic!("accepted by a pool, not so: {error}")
        };
        assert_eq!(format!("{on_pool:?}"), format!("{error:?}"), "on a pool");
        let stats = pool.stats();
        assert_eq!(
            (stats.calls, stats.inline_calls, stats.deaths),
            (0, 0, 0),
            "called before it was refused: {error}"
        );
    }
    error
}

/// The error of a call that begins, which is the same wherever it is made; the executor is as good
/// as before.
fn fails<T>(mut call: impl FnMut(Either<'_>) -> Result<T>) -> Error {
    fails_on_all(&mut |executor| call(executor).map(drop))
}

fn fails_on_all(call: &mut dyn FnMut(Either<'_>) -> Result<()>) -> Error {
    let executors = Executors::new(2);
    let mut fail = |place| {
        let Err(error) = call(executors.at(place).workers(2)) else { panic!("no error, {place}") };
        let next = executors.at(place).run_tasks(3, |task| task).unwrap();
        assert_eq!(next.as_slice(), [0, 1, 2], "the next call, {place}");
        error
    };
    let error = fail(Place::Fork);
    for place in [Place::Pool, Place::Inline] {
        assert_eq!(format!("{:?}", fail(place)), format!("{error:?}"), "{place}");
    }
    error
}

fn matrix(n_rows: usize) -> SharedArray<f64, Ix2> {
    SharedArray::zeros(None, (n_rows, 3)).unwrap()
}

/// `input`, `expected` and `found` of unequal numbers of rows.
fn unequal<T>(call: impl FnMut(Either<'_>) -> Result<T>) -> (usize, usize, usize) {
    match refused(call) {
        Error::UnequalRows { input, expected, found, .. } => (input, expected, found),
        other => panic!("{other}"),
    }
}

/// `expected` and `found` of an output's shape.
fn misshapen<T>(call: impl FnMut(Either<'_>) -> Result<T>) -> (Vec<usize>, Vec<usize>) {
    match refused(call) {
        Error::WrongShape { what: "output", expected, found, .. } => (expected, found),
        other => panic!("{other}"),
    }
}

#[test]
fn the_check_that_nothing_was_forked_can_fail() {
    isolated(|| {
        let before = faults_of_children();
        fork().workers(1).run_tasks(1, |_| 0_u8).unwrap();
        assert!(faults_of_children() > before);
    });
}

#[test]
fn every_operation_refuses_inputs_of_unequal_numbers_of_rows() {
    isolated(|| {
        let (a, mut b) = (matrix(5), SharedArray::<u8, Ix1>::zeros(None, 6).unwrap());
        let expected = (1, 5, 6);
        assert_eq!(unequal(|call| call.map_rows((&a, &b), |_| 0.0)), expected);
        let mut out = SharedArray::<f64, _>::zeros(None, 5).unwrap();
        assert_eq!(unequal(|call| call.map_rows_into((&a, &b), &mut out, |_| 0.0)), expected);
        assert_eq!(
            unequal(|call| call.transform_rows::<f64, _, _, _>((&a, &b), 2, |_, _| ())),
            expected
        );
        let mut wide = matrix(5);
        assert_eq!(
            unequal(|call| call.transform_rows_into((&a, &b), 3, &mut wide, |_, _| ())),
            expected
        );
        assert_eq!(
            unequal(|call| call.map_blocks::<f64, _, _, _>((&a, &b), 2, |_, _| ())),
            expected
        );
        assert_eq!(
            unequal(|call| call.map_blocks_into((&a, &b), 3, &mut wide, |_, _| ())),
            expected
        );
        assert_eq!(unequal(|call| call.fold_rows((&a, &b), 0.0, |_, _| (), |_, _| ())), expected);
        let identity = Array1::<f64>::zeros(3);
        assert_eq!(
            unequal(|call| call.fold_rows_array((&a, &b), &identity, |_, _| (), |_, _| ())),
            expected
        );
        assert_eq!(unequal(|call| call.update_rows_with(&mut b, &a, |_, _| ())), (1, 6, 5));
        let part = a.rows(1..4).unwrap();
        assert_eq!(unequal(|call| call.map_rows((&a, part), |_| 0.0)), (1, 5, 3));
    });
}

#[test]
fn the_third_and_the_fourth_input_are_named_by_their_number() {
    isolated(|| {
        let (a, b) = (matrix(5), matrix(6));
        assert_eq!(unequal(|call| call.map_rows((&a, &a, &b), |_| 0.0)), (2, 5, 6));
        assert_eq!(unequal(|call| call.map_rows((&a, &a, &a, &b), |_| 0.0)), (3, 5, 6));
        assert_eq!(
            unequal(|call| call.map_rows((&a, &b, &b), |_| 0.0)),
            (1, 5, 6),
            "the first that differs"
        );
        let mut array = matrix(5);
        assert_eq!(
            unequal(|call| call.update_rows_with(&mut array, (&b, &b), |_, _| ())),
            (1, 5, 6)
        );
    });
}

#[test]
fn an_error_about_nested_inputs_says_what_is_so() {
    isolated(|| {
        // "input {input} has {found} rows, and input 0 has {expected}", counted from left to right.
        let (a, b) = (matrix(5), matrix(6));
        assert_eq!(unequal(|call| call.map_rows(((&a, &b), &a), |_| 0.0)), (1, 5, 6));
        assert_eq!(
            unequal(|call| call.map_rows(((&a, &a), &b), |_| 0.0)),
            (2, 5, 6),
            "of ((5, 5), 6)"
        );
        assert_eq!(
            unequal(|call| call.map_rows((&a, (&a, &b)), |_| 0.0)),
            (2, 5, 6),
            "of (5, (5, 6))"
        );
        assert_eq!(
            unequal(|call| call.map_rows((&a, (&b, &a)), |_| 0.0)),
            (1, 5, 6),
            "of (5, (6, 5))"
        );
    });
}

#[test]
fn an_update_compares_every_input_with_its_array() {
    isolated(|| {
        let (mut array, a, b) = (matrix(5), matrix(5), matrix(6));
        assert_eq!(
            unequal(|call| call.update_rows_with(&mut array, (&a, &b), |_, _| ())),
            (2, 5, 6),
            "5 with (5, 6)"
        );
        assert_eq!(
            unequal(|call| call.update_rows_with(&mut array, (&b, &a), |_, _| ())),
            (1, 5, 6),
            "5 with (6, 5)"
        );
    });
}

#[test]
fn an_output_of_another_shape_is_refused_by_every_operation() {
    isolated(|| {
        let m = matrix(5);
        let mut short = SharedArray::<f64, _>::zeros(None, 4).unwrap();
        assert_eq!(
            misshapen(|call| call.map_rows_into(&m, &mut short, |_| 0.0)),
            (vec![5], vec![4])
        );
        assert_eq!(misshapen(|call| call.row_sums_into(&m, &mut short)), (vec![5], vec![4]));
        let mut rows = SharedArray::<u8, _>::zeros(None, (6, 2, 7)).unwrap();
        let expected = (vec![5, 2, 7], vec![6, 2, 7]);
        assert_eq!(
            misshapen(|call| call.transform_rows_into(&m, (2, 7), &mut rows, |_, _| ())),
            expected
        );
        assert_eq!(
            misshapen(|call| call.map_blocks_into(&m, (2, 7), &mut rows, |_, _| ())),
            expected
        );
        let mut narrow = matrix(5);
        let too_narrow = (vec![5, 4], vec![5, 3]);
        assert_eq!(
            misshapen(|call| call.transform_rows_into(&m, 4, &mut narrow, |_, _| ())),
            too_narrow
        );
        assert_eq!(
            misshapen(|call| call.map_blocks_into(&m, 4, &mut narrow, |_, _| ())),
            too_narrow
        );
        let mut sums = SharedArray::<f64, _>::zeros(None, (3, 1)).unwrap();
        let identity = Array2::<f64>::zeros((1, 3));
        let folded = |call: Either<'_>| {
            call.fold_rows_array_into(&m, &identity, &mut sums, |_, _| (), |_, _| ())
        };
        assert_eq!(misshapen(folded), (vec![1, 3], vec![3, 1]));
        let mut none = SharedArray::<f64, IxDyn>::zeros(None, vec![]).unwrap();
        assert_eq!(
            misshapen(|call| call.transform_rows_into(&m, IxDyn(&[]), &mut none, |_, _| ())),
            (vec![5], vec![])
        );
    });
}

#[test]
fn of_two_mistakes_the_one_in_the_input_is_named_first() {
    isolated(|| {
        let (m, other) = (matrix(5), matrix(4));
        let none = SharedArray::copy_from(None, &ArrayD::<f64>::zeros(vec![])).unwrap();
        let mut long = SharedArray::<f64, _>::zeros(None, 9).unwrap();
        let mut wide = matrix(9);
        assert!(matches!(
            refused(|call| call.map_rows_into(&none, &mut long, |_| 0.0)),
            Error::NoRows { input: 0, .. }
        ));
        assert!(matches!(
            refused(|call| call.row_sums_into(&none, &mut long)),
            Error::NoRows { input: 0, .. }
        ));
        assert!(matches!(
            refused(|call| call.workers(0).row_sums_into(&m, &mut long)),
            Error::ZeroWorkers
        ));
        assert_eq!(unequal(|call| call.map_rows_into((&m, &other), &mut long, |_| 0.0)), (1, 5, 4));
        assert_eq!(
            unequal(|call| call.transform_rows_into((&m, &other), 3, &mut wide, |_, _| ())),
            (1, 5, 4)
        );
        assert_eq!(
            unequal(|call| call.map_blocks_into((&m, &other), 3, &mut wide, |_, _| ())),
            (1, 5, 4)
        );
    });
}

#[test]
fn a_fold_of_any_number_of_rows_refuses_an_output_that_was_cut() {
    isolated(|| {
        let name = isolated::unique_name("cut");
        let mut out = SharedArray::<f64, _>::zeros(name.as_str(), 10_000).unwrap();
        let file = std::fs::File::options().write(true).open(format!("/dev/shm/{name}")).unwrap();
        file.set_len(8192).unwrap();
        let identity = Array1::<f64>::zeros(10_000);
        for n_rows in [0, 1, 65] {
            let m = matrix(n_rows);
            let folded = |call: Either<'_>| {
                call.fold_rows_array_into(&m, &identity, &mut out, |_, _| (), |_, _| ())
            };
            assert!(
                matches!(refused(folded), Error::Truncated { actual: 8192, .. }),
                "{n_rows} rows"
            );
        }
    });
}

#[test]
fn a_missing_row_column_index_or_axis_is_named() {
    isolated(|| {
        let (m, images) = (matrix(5), SharedArray::<u8, _>::zeros(None, (5, 6, 7)).unwrap());
        let beyond = |error: Error| match error {
            Error::SelectionOutOfRange { what, index, len, .. } => (what, index, len),
            other => panic!("{other}"),
        };
        assert_eq!(beyond(refused(|_| m.columns(1..4))), ("column", 3, 3));
        assert_eq!(beyond(refused(|_| m.columns(-4..))), ("column", -4, 3));
        assert_eq!(beyond(refused(|_| m.rows(6..))), ("row", 6, 5));
        assert_eq!(beyond(refused(|_| m.rows(Slice::new(0, Some(100), 7)))), ("row", 99, 5));
        assert_eq!(beyond(refused(|_| images.slice_axis(Axis(2), 0..8))), ("index", 7, 7));
        assert_eq!(beyond(refused(|_| images.slice_axis(Axis(1), ..-7))), ("index", -7, 6));
        assert_eq!(beyond(refused(|_| images.slice_axis(Axis(3), ..))), ("axis", 3, 3));
        assert_eq!(
            beyond(refused(|_| images.slice_axis(Axis(usize::MAX), ..))),
            ("axis", isize::MAX, 3)
        );
        assert_eq!(m.rows(5..).unwrap().n_rows(), 0, "the end itself is not beyond it");
    });
}

#[test]
fn both_folds_refuse_an_accumulator_that_can_hold_nothing() {
    isolated(|| {
        let m = matrix(5);
        let empty = |error: Error| match error {
            Error::EmptyAccumulator { shape, found, needed, .. } => (shape, found, needed),
            other => panic!("{other}"),
        };
        assert_eq!(
            empty(refused(|call| call.fold_rows(&m, (), |(), _| (), |(), ()| ()))),
            (vec![], 0, 1)
        );
        let none = Array2::<f64>::zeros((4, 0));
        let folded = refused(|call| call.fold_rows_array(&m, &none, |_, _| (), |_, _| ()));
        assert_eq!(empty(folded), (vec![4, 0], 0, 1));
        let mut out = SharedArray::<f64, _>::zeros(None, (4, 0)).unwrap();
        let folded =
            refused(|call| call.fold_rows_array_into(&m, &none, &mut out, |_, _| (), |_, _| ()));
        assert_eq!(empty(folded), (vec![4, 0], 0, 1));
    });
}

#[test]
fn an_array_without_axes_has_no_rows() {
    isolated(|| {
        let mut none = SharedArray::copy_from(None, &ArrayD::<f64>::zeros(vec![])).unwrap();
        let m = matrix(1);
        let no_rows = |error: Error| match error {
            Error::NoRows { input, .. } => input,
            other => panic!("{other}"),
        };
        assert_eq!(no_rows(refused(|call| call.map_rows(&none, |_| 0.0))), 0);
        assert_eq!(no_rows(refused(|call| call.map_rows((&m, &none), |_| 0.0))), 1);
        assert_eq!(no_rows(refused(|call| call.row_sums(&none))), 0);
        assert_eq!(no_rows(refused(|call| call.fold_rows(&none, 0.0, |_, _| (), |_, _| ()))), 0);
        assert_eq!(
            no_rows(refused(|call| call.map_blocks::<f64, _, _, _>(&none, 2, |_, _| ()))),
            0
        );
        let mut one = matrix(1);
        assert_eq!(no_rows(refused(|call| call.update_rows_with(&mut one, &none, |_, _| ()))), 1);
        assert_eq!(no_rows(refused(|call| call.update_rows(&mut none, |_| ()))), 0);
    });
}

#[test]
fn assigning_a_row_of_another_shape_is_a_panic_of_the_row() {
    isolated(|| {
        let m = matrix(5);
        match fails(|call| call.transform_rows::<f64, _, _, _>(&m, 2, |row, out| out.assign(&row)))
        {
            Error::KernelPanicked { row: 0, message, .. } => {
                assert!(message.contains("broadcast"), "{message}");
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn the_text_of_a_refusal_has_both_numbers() {
    isolated(|| {
        let (a, b) = (matrix(5), matrix(6));
        let text = refused(|call| call.map_rows((&a, &b), |_| 0.0)).to_string();
        assert!(text.contains("input 1 has 6 rows, and input 0 has 5"), "{text}");
        let text = refused(|_| a.columns(..4)).to_string();
        assert!(text.contains("column 3 asked for, but there are 3"), "{text}");
        let text = refused(|call| call.fold_rows(&a, (), |(), _| (), |(), ()| ())).to_string();
        assert!(text.contains("0 bytes") && text.contains("at least 1"), "{text}");
    });
}

#[test]
fn what_is_the_same_for_every_row_has_none() {
    isolated(|| {
        let m = matrix(5);
        let no_rows = |error: Error| match error {
            Error::NoRows { input, .. } => input,
            other => panic!("{other}"),
        };
        assert_eq!(no_rows(refused(|call| call.map_rows(param(0.5), |x| x))), 0);
        assert_eq!(no_rows(refused(|call| call.map_rows(broadcast(&m), |m| m.sum()))), 0);
        assert_eq!(
            no_rows(refused(
                |call| call.map_rows((broadcast(&m), param(0.5)), |(m, x)| m.sum() * x)
            )),
            0
        );
        let nested = |call: Either<'_>| {
            call.map_blocks::<f64, _, _, _>((param(1), (param(2), broadcast(&m))), 2, |_, _| ())
        };
        assert_eq!(no_rows(refused(nested)), 0);
        assert_eq!(
            no_rows(refused(|call| call.fold_rows(
                (param(1), param(2)),
                0.0,
                |_, _| (),
                |_, _| ()
            ))),
            0
        );
        let mut updated = matrix(4);
        let with_others = |call: Either<'_>| {
            call.update_rows_with(&mut updated, (broadcast(&m), param(1), &m), |_, _| ())
        };
        assert_eq!(unequal(with_others), (3, 4, 5), "they count, and need no rows");
    });
}

#[test]
fn every_kind_of_operation_refuses_options_that_make_no_sense() {
    isolated(|| {
        let mut m = matrix(5);
        let identity = Array1::<f64>::zeros(3);
        let zero = |error: Error| assert!(matches!(error, Error::ZeroBlockRows), "{error}");
        zero(refused(|call| call.block_rows(0).map_rows(&m, |_| 0.0)));
        zero(refused(|call| call.block_rows(0).row_sums(&m)));
        zero(refused(|call| call.block_rows(0).row_dot(&m, &identity)));
        zero(refused(|call| call.block_rows(0).run_tasks(5, |task| task)));
        zero(refused(|call| {
            call.block_rows(0).fold_rows_array(&m, &identity, |_, _| (), |_, _| ())
        }));
        zero(refused(|call| call.block_rows(0).update_rows(&mut m, |_| ())));
        let error = refused(|call| call.workers(70_000).row_sums(&m));
        assert!(matches!(error, Error::TooManyWorkers { asked: 70_000, .. }), "{error}");
        let error = refused(|call| call.workers(0).map_rows(&m, |_| 0.0));
        assert!(matches!(error, Error::ZeroWorkers), "{error}");
    });
}

#[test]
fn a_fill_that_is_no_element_of_the_output_is_refused() {
    isolated(|| {
        let m = matrix(5);
        let bytes = SharedArray::<u8, _>::zeros(None, (5, 2)).unwrap();
        let unfit = |error: Error| match error {
            Error::UnfitFill { value, dtype, .. } => (value, dtype),
            other => panic!("{other}"),
        };
        let fill = || Policy::fill(0.5);
        assert_eq!(unfit(refused(|call| call.policy(fill()).map_rows(&m, |_| 1_u8))).0, "0.5");
        let of_sums = unfit(refused(|call| call.policy(fill()).row_sums(&bytes)));
        assert_eq!(of_sums.0, "0.5");
        assert_eq!(
            of_sums.1,
            unfit(refused(|call| call.policy(fill()).run_tasks(5, |task| task))).1,
            "words both"
        );
    });
}

#[test]
fn a_vector_of_another_length_than_the_rows_is_refused() {
    isolated(|| {
        let m = matrix(5);
        let vector = Array1::<f64>::ones(4);
        let mut out = SharedArray::<f64, _>::zeros(None, 5).unwrap();
        let what = |error: Error| match error {
            Error::WrongShape { what, expected, found, .. } => (what, expected, found),
            other => panic!("{other}"),
        };
        assert_eq!(what(refused(|call| call.row_dot(&m, &vector))), ("vector", vec![3], vec![4]));
        assert_eq!(
            what(refused(|call| call.row_dot_into(&m, &vector, &mut out))),
            ("vector", vec![3], vec![4])
        );
        let weighted = refused(|call| call.row_weighted_means(&m, &vector));
        assert_eq!(what(weighted), ("array of weights", vec![3], vec![4]));
    });
}

#[test]
fn a_sum_that_does_not_fit_is_an_error_wherever_it_is_made() {
    isolated(|| {
        let m =
            SharedArray::from_shape_fn(None, (100, 2), |(i, _)| if i >= 40 { i64::MAX } else { 1 })
                .unwrap();
        match fails(|call| call.row_sums(&m)) {
            Error::SumOverflow { row: 40, sum, .. } => assert_eq!(sum, 2 * i128::from(i64::MAX)),
            other => panic!("{other}"),
        }
        let turned = m.rows(Slice::new(0, None, -1)).unwrap();
        let overflow = fails(|call| call.block_rows(3).row_sums(turned));
        assert!(matches!(overflow, Error::SumOverflow { row: 0, .. }), "{overflow}");
        let mut out = SharedArray::<i64, _>::zeros(None, 100).unwrap();
        let overflow = fails(|call| call.row_sums_into(&m, &mut out));
        assert!(matches!(overflow, Error::SumOverflow { row: 40, .. }), "{overflow}");
        let executors = Executors::new(2);
        for place in Place::ALL {
            let sums = executors.at(place).policy(Policy::fill(-1)).row_sums(&m).unwrap();
            assert_eq!(sums.as_slice(), [[2; 40].as_slice(), &[-1; 60]].concat(), "{place}");
            assert_eq!(sums.missing_rows().first(), Some(&(40..100)), "{place}");
        }
    });
}

#[test]
fn the_lowest_row_that_fails_is_named_wherever_it_is_run() {
    isolated(|| {
        let m = matrix(500);
        match fails(|call| {
            call.map_rows(
                &m,
                |row| if row.index() % 100 == 77 { Err("bad") } else { Ok(row.sum()) },
            )
        }) {
            Error::KernelFailed { row: 77, message, .. } => assert_eq!(message, "bad"),
            other => panic!("{other}"),
        }
        match fails(|call| {
            call.fold_rows(&m, 0.0, |_, row| assert!(row.index() < 321, "of 321"), |_, _| ())
        }) {
            Error::KernelPanicked { row: 321, message, .. } => assert_eq!(message, "of 321"),
            other => panic!("{other}"),
        }
    });
}

#[test]
fn a_pool_is_told_of_more_arrays_than_it_keeps() {
    isolated(|| {
        let pool = Pool::builder().workers(2).build().unwrap();
        let arrays: Vec<_> =
            (0..63).map(|_| SharedArray::from_shape_fn(None, 3, |_| 0.5).unwrap()).collect();
        let seven = |first: usize| {
            let at = |n: usize| broadcast(&arrays[first + n]);
            (at(0), at(1), at(2), at(3), at(4), at(5), at(6))
        };
        let m = matrix(5);
        let most = (
            rowfork::tasks(5),
            (seven(0), seven(7), seven(14), seven(21), seven(28), seven(35), seven(42), seven(49)),
        );
        let some = pool
            .map_rows((most.clone(), seven(56)), |((index, _), last)| last.6[2] + index as f64)
            .unwrap();
        assert_eq!(some[4], 4.5, "63 and the output");
        match pool.map_rows((most, &m, seven(56)), |_| 0.0).unwrap_err() {
            Error::TooManyArrays { asked: 65, max: 64, .. } => {}
            other => panic!("{other}"),
        }
        assert_eq!(pool.row_sums(&m).unwrap().as_slice(), [0.0; 5]);
    });
}

#[test]
fn a_kernel_that_captures_a_word_is_refused_by_a_pool_by_name() {
    isolated(|| {
        #[expect(clippy::needless_pass_by_value, reason = "so a kernel gets it")]
        fn twice(row: Row<'_, f64, Ix1>) -> f64 {
            2.0 * row.sum()
        }
        let pool = Pool::builder().workers(2).build().unwrap();
        let m = SharedArray::from_shape_fn(None, (100, 3), |_| 1.0).unwrap();
        let (scale, offset) = (0.5_f64, 7_usize);
        match pool.map_rows(&m, move |row| scale * row.sum()).unwrap_err() {
            Error::KernelCaptures => {}
            other => panic!("{other}"),
        }
        match pool.run_tasks(10, move |task| task + offset).unwrap_err() {
            Error::KernelCaptures => {}
            other => panic!("{other}"),
        }
        let combine = move |sum: &mut f64, other: &f64| *sum += other * scale;
        let error = pool.fold_rows(&m, 0.0, |sum, row| *sum += row.sum(), combine).unwrap_err();
        assert!(matches!(error, Error::KernelCaptures), "of two kernels one: {error}");
        // What needs nothing, and what says where it is.
        assert_eq!(pool.map_rows(&m, twice).unwrap()[99], 6.0);
        let by_pointer: fn(Row<'_, f64, Ix1>) -> f64 =
            if offset == 7 { twice } else { |row| row.sum() };
        assert_eq!(pool.map_rows(&m, by_pointer).unwrap()[99], 6.0);
        assert_eq!(pool.stats().deaths, 0);
    });
}
