//! A pool whose zygote, or whose caller, is killed: a typed error and no hang there, nothing left
//! behind here. And what pools keep of their caller and of each other: nothing.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowfork::failpoints::{self, Failpoint};
use rowfork::{Error, SharedArray, fork, segment};

use crate::support::disturbance::Random;
use crate::support::harm::{
    self, DAWDLES, Harm, KILLED, NO_HARM, SPINS, WHERE, bits, count_anew, matrix,
};
use crate::support::isolated::{self, is_running, isolated, name_of, processes, unique_name};
use crate::support::pooled::{
    descriptors_under_way, end, end_zygote_of, kill_until_it_forks_no_more, pool_of, until,
    workers_of,
};
use crate::support::{self, Holder, Names, eventually, player, say, shm, skip, sweeps_until};
use crate::transformed;

const SECOND: Duration = Duration::from_secs(1);

/// Callers that are killed.
const ROUNDS: u64 = 200;
const AT_ONCE: u64 = 10;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn is_broken<T>(outcome: rowfork::Result<T>) -> bool {
    match outcome.map(drop) {
        Err(Error::PoolBroken { reason, .. }) => reason.contains("killed"),
        Err(other) => panic!("{other}"),
        Ok(()) => false,
    }
}

/// Processes named so that are still there, zombies apart.
fn running_among(pids: &BTreeSet<i32>) -> Vec<i32> {
    pids.iter().copied().filter(|&pid| is_running(pid)).collect()
}

/// A process and all that come of it.
fn family_of(root: i32) -> BTreeSet<i32> {
    let all = processes();
    let mut family = BTreeSet::from([root]);
    loop {
        let more = all.iter().filter(|p| {
            family.contains(&i32::try_from(p.parent).unwrap_or(0)) && !family.contains(&p.pid)
        });
        let more: Vec<i32> = more.map(|process| process.pid).collect();
        if more.is_empty() {
            return family;
        }
        family.extend(more);
    }
}

#[test]
#[ignore = "plays a part in other tests"]
fn plays_a_role() {
    let Ok(role) = std::env::var(support::ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    failpoints::throw_by_environment();
    match words[..] {
        // Says the zygote's number, has three names, calls for ever.
        ["calls", prefix] => {
            let name = |tag: &str| format!("{prefix}{tag}");
            let m =
                SharedArray::from_shape_fn(name("m").as_str(), (400, 4), |(i, j)| (i + j) as f64)
                    .unwrap();
            let mut lasting =
                SharedArray::<f64, ndarray::Ix1>::zeros(name("lasting").as_str(), 10).unwrap();
            lasting.persist().unwrap();
            let pool = pool_of(2).build().unwrap();
            let mut published = transformed!(pool, &m, NO_HARM).unwrap().into_inner();
            published.publish(&name("out")).unwrap();
            say(&pool.stats().zygote_pid.to_string());
            for round in 0_u64.. {
                // Now and then between two calls, else in one.
                let dawdle = if round.is_multiple_of(3) { 20 } else { 0 };
                transformed!(pool, &m, [DAWDLES, 0, 0, dawdle]).unwrap();
                let _short_lived =
                    SharedArray::<f64, ndarray::Ix1>::zeros(name("short").as_str(), 10).unwrap();
            }
        }
        // Calls with an array that its only worker never receives.
        ["sends", name] => {
            let pool = pool_of(1).build().unwrap();
            transformed!(pool, &matrix(10, 4), NO_HARM).unwrap();
            let m = SharedArray::from_shape_fn(name, (400, 4), |(i, j)| (i + j) as f64).unwrap();
            kill(Pid::from_raw(pool.stats().worker_pids[0]), Signal::SIGSTOP).unwrap();
            say(&pool.stats().zygote_pid.to_string());
            drop(transformed!(pool, &m, NO_HARM));
        }
        _ => panic!("unknown role {role}"),
    }
}

/// Kills a caller after `delay`, by `kill_them`, which is given it and its zygote; if that lives,
/// it takes the names away. When all have gone, and when the workers.
fn a_caller_is_killed(
    names: &Names,
    delay: Duration,
    zygote_lives: bool,
    kill_them: impl Fn(i32, i32),
) -> (Duration, Duration) {
    let prefix = names.name("");
    let mut holder = Holder::start(player(plays_a_role, &format!("calls {prefix}")));
    let zygote: i32 = holder.says().parse().unwrap();
    let caller = holder.child.id().cast_signed();
    std::thread::sleep(delay);
    let family = family_of(caller);
    assert!(family.contains(&zygote) && family.len() >= 3, "{family:?}");
    kill_them(caller, zygote);
    let status = holder.child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "the caller was to be killed in its calls");
    let workers = until(SECOND, "all workers are gone", || {
        running_among(&family).iter().all(|&pid| pid == zygote)
    });
    if zygote_lives {
        until(SECOND, "its volatile names are gone", || names.left() == [names.name("lasting")]);
    }
    let all = until(5 * SECOND, "the zygote is gone", || running_among(&family).is_empty());
    (all, workers)
}

#[test]
fn an_idle_pool_whose_zygote_is_killed_says_so_at_the_next_call() {
    isolated(|| {
        let m = matrix(100, 4);
        for at_once in [true, false] {
            let pool = pool_of(2).build().unwrap();
            let right = bits(&transformed!(pool, &m, NO_HARM).unwrap());
            let (zygote, workers) =
                (pool.stats().zygote_pid, pool.stats().worker_pids.into_iter().collect());
            let has_ended = || !is_running(zygote) && running_among(&workers).is_empty();
            end(zygote);
            if !at_once {
                until(SECOND, "the end of the zygote and its workers", has_ended);
            }
            let began = Instant::now();
            // One that comes at once may find workers that do not know it yet: then it is right.
            let broken = match transformed!(pool, &m, NO_HARM) {
                Ok(out) => {
                    assert!(at_once && bits(&out) == right, "a dead pool has worked");
                    false
                }
                outcome => is_broken(outcome),
            };
            if !broken {
                until(SECOND, "the end of the zygote and its workers", has_ended);
                assert!(is_broken(transformed!(pool, &m, NO_HARM)));
            }
            assert!(is_broken(transformed!(pool, &m, NO_HARM)), "and at every later one");
            assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
            assert!(running_among(&workers).is_empty());
            assert!(pool.stats().worker_pids.is_empty());
            drop(pool);
            let pool = pool_of(2).build().unwrap();
            assert!(bits(&transformed!(pool, &m, NO_HARM).unwrap()) == right, "another one works");
        }
    });
}

#[test]
fn a_busy_pool_without_its_zygote_says_so_and_writes_no_more() {
    isolated(|| {
        let m = matrix(2000, 4);
        let mut random = Random(0x5eed);
        let mut longest = Duration::ZERO;
        for round in 0..20 {
            let pool = pool_of(2).build().unwrap();
            let (zygote, workers) =
                (pool.stats().zygote_pid, pool.stats().worker_pids.into_iter().collect());
            let mut out = SharedArray::<f64, _>::zeros(None, 2000).unwrap();
            let delay = Duration::from_micros(random.below(8000));
            let (outcome, ended) = std::thread::scope(|scope| {
                let killer = scope.spawn(move || {
                    std::thread::sleep(delay);
                    end(zygote);
                    Instant::now()
                });
                let outcome = pool.map_rows_into((&m, param_of(round)), &mut out, |(row, harm)| {
                    harm::harm(harm, row.index(), 0);
                    row.sum()
                });
                let ended = Instant::now();
                (outcome, ended.saturating_duration_since(killer.join().unwrap()))
            });
            assert!(is_broken(outcome), "round {round}");
            assert!(running_among(&workers).is_empty(), "round {round}: a worker lives");
            longest = longest.max(ended);
            out.view_mut().fill(7.0);
            std::thread::sleep(ms(3));
            assert!(out.view().iter().all(|&value| value == 7.0), "round {round}: written to");
            assert!(is_broken(transformed!(pool, &m, NO_HARM)));
        }
        println!(
            "FIGURE a busy pool's caller knows of its zygote's death within {longest:.1?} at most"
        );
        assert!(longest < SECOND, "{longest:?}");
    });
}

#[test]
fn an_update_whose_zygote_is_killed_accounts_for_its_rows() {
    isolated(|| {
        let pool = pool_of(2).build().unwrap();
        let before = matrix(200, 4);
        let mut array = SharedArray::copy_from(None, &before.view()).unwrap();
        let zygote = pool.stats().zygote_pid;
        let outcome = std::thread::scope(|scope| {
            scope.spawn(move || {
                until(SECOND, "the row", || WHERE.load(Ordering::Acquire) != 0);
                end(zygote);
            });
            let rows = (rowfork::param([SPINS, 77, 0, 1]), &before);
            pool.call().block_rows(10).update_rows_with(&mut array, rows, |row, (harm, _)| {
                harm::harm(harm, row.index(), 0);
                row[0] += 1.0;
            })
        });
        match outcome.unwrap_err() {
            Error::UpdateInterrupted { cause: source, updated, torn, .. } => {
                assert!(matches!(*source, Error::PoolBroken { .. }), "{source}");
                for row in 0..200 {
                    let change = array.view()[[row, 0]] - before.view()[[row, 0]];
                    let is_in = |ranges: &[std::ops::Range<usize>]| {
                        ranges.iter().any(|rows| rows.contains(&row))
                    };
                    assert!(
                        is_in(&torn) || (change != 0.0) == is_in(&updated),
                        "row {row}: {change}, {updated:?}, {torn:?}"
                    );
                }
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn a_pool_whose_idle_workers_keep_being_killed_gives_up() {
    isolated(|| {
        let m = matrix(100, 4);
        let pool = pool_of(2).build().unwrap();
        let zygote = pool.stats().zygote_pid;
        let began = Instant::now();
        let killed = kill_until_it_forks_no_more(zygote, None);
        println!("FIGURE a pool of two gives up after {killed} kills in {:.0?}", began.elapsed());
        assert!((10..1000).contains(&killed), "{killed} kills");
        let began = Instant::now();
        match transformed!(pool, &m, NO_HARM).map(drop) {
            Err(Error::PoolBroken { reason, .. }) => {
                assert!(reason.contains("died while no call was running"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        until(SECOND, "the end of the zygote", || !is_running(zygote));
        drop(pool);
        assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    });
}

#[test]
fn a_pool_whose_workers_die_now_and_then_between_calls_goes_on() {
    isolated(|| {
        let m = matrix(100, 4);
        let pool = pool_of(2).build().unwrap();
        let right = bits(&transformed!(pool, &m, NO_HARM).unwrap());
        for round in 0..150 {
            workers_of(pool.stats().zygote_pid).into_iter().for_each(end);
            assert!(bits(&transformed!(pool, &m, NO_HARM).unwrap()) == right, "round {round}");
        }
    });
}

#[test]
fn a_panic_in_init_is_told_by_build_or_by_each_call() {
    isolated(|| {
        match pool_of(2).init(|| panic!("no model")).build().map(drop) {
            Err(Error::WorkerSetup { message, .. }) => {
                assert!(message.contains("no model"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        // Those that come later find nothing any more.
        let m = matrix(100, 4);
        let init = || assert!(harm::TIMES.fetch_add(1, Ordering::AcqRel) < 2, "no model");
        let pool = pool_of(2).init(init).build().unwrap();
        transformed!(pool, &m, NO_HARM).unwrap();
        for _ in 0..3 {
            workers_of(pool.stats().zygote_pid).into_iter().for_each(end);
            match transformed!(pool, &m, NO_HARM).map(drop) {
                Err(Error::WorkerSetup { message, .. }) => {
                    assert!(message.contains("no model"), "{message}");
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn callers_killed_at_any_time_leave_no_process_or_volatile_name() {
    isolated(|| {
        let longest = std::sync::Mutex::new(Duration::ZERO);
        std::thread::scope(|scope| {
            for seed in 1..=AT_ONCE {
                let longest = &longest;
                scope.spawn(move || {
                    let mut random = Random((seed * 0x9_aad) | 1);
                    for round in 0..ROUNDS / AT_ONCE {
                        let names = Names::new();
                        let delay = Duration::from_micros(random.below(20_000));
                        let lasting = names.name("lasting");
                        let (_, gone) =
                            a_caller_is_killed(&names, delay, true, |caller, _| end(caller));
                        let mut longest = longest.lock().unwrap();
                        *longest = gone.max(*longest);
                        assert_eq!(names.left(), std::slice::from_ref(&lasting), "round {round}");
                        assert!(eventually(|| segment::remove(&lasting).is_ok()));
                    }
                });
            }
        });
        let longest = longest.into_inner().unwrap();
        println!(
            "FIGURE after {ROUNDS} callers were killed, workers were gone within {longest:.1?} at \
             most"
        );
    });
}

#[test]
fn a_name_goes_though_its_array_is_on_its_way_to_a_worker() {
    isolated(|| {
        let names = Names::new();
        let mut holder = Holder::start(player(plays_a_role, &format!("sends {}", names.name("m"))));
        let zygote: i32 = holder.says().parse().unwrap();
        if descriptors_under_way(zygote).is_none() {
            return skip("the kernel does not say what is on its way (Linux 5.11 does)");
        }
        until(5 * SECOND, "the array is on its way", || descriptors_under_way(zygote) > Some(0));
        assert_eq!(names.left().len(), 1);
        holder.kill();
        until(SECOND, "the name is gone", || names.left().is_empty());
        until(SECOND, "the zygote is gone", || !is_running(zygote));
    });
}

#[test]
fn caller_and_zygote_killed_together_leave_only_names_to_sweep() {
    isolated(|| {
        let mut random = Random(0xbad);
        for round in 0..20 {
            let names = Names::new();
            let delay = Duration::from_micros(random.below(20_000));
            a_caller_is_killed(&names, delay, false, |caller, zygote| {
                // Stopped first: neither sees the other's death.
                kill(Pid::from_raw(zygote), Signal::SIGSTOP).unwrap();
                end(caller);
                end(zygote);
            });
            let lasting = [names.name("lasting")];
            let swept = sweeps_until(|| names.left() == lasting);
            assert!(swept, "round {round}: left {:?}", names.left());
            assert!(eventually(|| segment::remove(&names.name("lasting")).is_ok()));
        }
    });
}

#[test]
fn a_pipe_that_the_caller_closes_ends_although_pools_live() {
    isolated(|| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let pools = [pool_of(2).build().unwrap(), pool_of(1).build().unwrap()];
        let m = matrix(100, 4);
        for pool in &pools {
            drop(transformed!(pool, &m, NO_HARM).unwrap());
        }
        drop(writer);
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(reader.read_to_end(&mut Vec::new()).unwrap()));
        assert_eq!(ended.recv_timeout(2 * SECOND).expect("some process of a pool holds it"), 0);
    });
}

#[test]
fn pools_and_forking_calls_live_side_by_side() {
    isolated(|| {
        let m = matrix(400, 4);
        let right = bits(&transformed!(fork().workers(2), &m, NO_HARM).unwrap());
        let one = pool_of(2).build().unwrap();
        let two = pool_of(3).build().unwrap();
        for round in 0..30 {
            count_anew();
            let harm = if round % 5 == 0 { [KILLED, 33, 1, 1] } else { NO_HARM };
            assert!(bits(&transformed!(one, &m, harm).unwrap()) == right, "one, round {round}");
            assert!(
                bits(&transformed!(fork().workers(2), &m, NO_HARM).unwrap()) == right,
                "fork, round {round}"
            );
            assert!(bits(&transformed!(two, &m, harm).unwrap()) == right, "two, round {round}");
            let passing = pool_of(1).build().unwrap();
            assert!(
                bits(&transformed!(passing, &m, NO_HARM).unwrap()) == right,
                "passing, round {round}"
            );
        }
        let zygote = one.stats().zygote_pid;
        drop(one);
        assert!(!is_running(zygote));
        assert!(bits(&transformed!(two, &m, NO_HARM).unwrap()) == right);
        end_zygote_of(&two);
        let three = pool_of(2).build().unwrap();
        assert!(is_broken(transformed!(two, &m, NO_HARM)));
        assert!(bits(&transformed!(three, &m, NO_HARM).unwrap()) == right);
    });
}

#[test]
fn a_volatile_name_of_a_living_caller_outlives_its_pools() {
    isolated(|| {
        let name = unique_name("living");
        let m =
            SharedArray::from_shape_fn(name.as_str(), (100, 4), |(i, j)| (i + j) as f64).unwrap();
        let pool = pool_of(2).build().unwrap();
        drop(transformed!(pool, &m, NO_HARM).unwrap());
        end_zygote_of(&pool);
        drop(pool);
        assert!(shm(&name).exists());
        drop(m);
        assert!(!shm(&name).exists());
    });
}

/// Some 20 us a row.
fn param_of(round: u64) -> rowfork::Param<Harm> {
    rowfork::param([DAWDLES, round, 0, 20])
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[
        (
            Failpoint::KeepDescriptorsOfCaller,
            name_of(a_pipe_that_the_caller_closes_ends_although_pools_live),
        ),
        // (Who leaves names cannot be seen here: another test's zygote takes them away.)
    ]);
}
