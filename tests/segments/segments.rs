#![allow(unsafe_code, reason = "attaches to segments that only this test knows")]

//! The life of a segment: born under a name or none, published, persisted, attached, listed,
//! removed, swept; and whom it is hidden from.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use ndarray::{Array2, Ix1, Ix2, array, s};
use rowfork::failpoints::{self, Failpoint};
use rowfork::{Error, SharedArray, segment};

use crate::support::isolated::{self, name_of};
use crate::support::{
    self, Holder, Names, as_player, eventually, hold, is_root, open_descriptors, player, say, shm,
    skip, succeeds,
};

/// Another user, whom every system has.
const NOBODY: &str = "65534";

fn attach(name: &str) -> rowfork::Result<SharedArray<f64, Ix2>> {
    // SAFETY: the names are this test's own, and writers and readers take turns.
    unsafe { SharedArray::attach(name) }
}

fn make(name: &str) -> rowfork::Result<SharedArray<f64, Ix2>> {
    SharedArray::from_shape_fn(name, (3, 4), |(i, j)| (10 * i + j) as f64)
}

fn mode(name: &str) -> u32 {
    std::fs::metadata(shm(name)).unwrap().mode() & 0o7777
}

fn user_ids(id: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", id, "--regid", id, "--clear-groups"])
        .arg(std::env::current_exe().unwrap());
    command
}

/// What this binary does when another test runs it as a process of its own.
#[test]
#[ignore = "plays a part in other tests"]
fn plays_a_role() {
    let Ok(role) = std::env::var(support::ROLE) else { return };
    failpoints::throw_by_environment();
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["hold", name] => {
            let _made = make(name).unwrap();
            say("ready");
            hold();
        }
        ["attach", name] => {
            let attached = attach(name).unwrap();
            say(&attached.view().sum().to_string());
            hold();
        }
        ["race", name, go] => {
            while !std::path::Path::new(go).exists() {
                std::hint::spin_loop();
            }
            let made = make(name);
            match &made {
                Ok(_) => say("won"),
                Err(Error::NameInUse { .. }) => say("in use"),
                Err(other) => say(&other.to_string()),
            }
            hold();
        }
        ["umask", umask, name] => {
            let umask = u32::from_str_radix(umask, 8).unwrap();
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
            let mut made = make(name).unwrap();
            assert_eq!(mode(name), 0o1600);
            assert_eq!(attach(name).unwrap().view(), made.view());
            made.persist().unwrap();
            assert_eq!(mode(name), 0o600);
            drop(made);
            assert!(eventually(|| segment::remove(name).is_ok()));
        }
        ["stranger", name, owner] => {
            let owner_uid: u32 = owner.parse().unwrap();
            let refused =
                |error| matches!(error, Error::NotOurs { owner_uid: uid, .. } if uid == owner_uid);
            assert!(refused(attach(name).unwrap_err()));
            assert!(refused(SharedArray::<f64, Ix2>::read_copy(name).unwrap_err()));
            assert!(refused(segment::remove(name).unwrap_err()));
            assert!(matches!(
                make(name),
                Err(Error::NameInUse { owner_uid: uid, .. }) if uid == owner_uid
            ));
            assert!(segment::list().unwrap().iter().all(|s| s.name != name));
            assert!(std::fs::remove_file(shm(name)).is_err());
            assert!(
                std::fs::OpenOptions::new().write(true).truncate(true).open(shm(name)).is_err()
            );
        }
        ["fork", name] => drops_in_a_forked_child(name),
        ["leaks", name] => looks_for_leaks(name),
        _ => panic!("unknown role {role}"),
    }
}

#[test]
fn a_named_array_is_there_while_it_lives_and_gone_when_dropped() {
    let names = Names::new();
    let name = names.name("a");
    let m = make(&name).unwrap();
    assert_eq!(
        (m.name(), m.shape(), m.n_rows(), m.len()),
        (Some(name.as_str()), &[3, 4][..], 3, 12)
    );
    assert_eq!(mode(&name), 0o1600);
    assert_eq!(attach(&name).unwrap().view(), m.view());
    assert_eq!(SharedArray::<f64, Ix2>::read_copy(&format!("/{name}")).unwrap(), m.view());
    drop(m);
    assert!(matches!(attach(&name), Err(Error::NameNotFound { name: n , .. }) if n == name));
    assert!(matches!(SharedArray::<f64, Ix2>::read_copy(&name), Err(Error::NameNotFound { .. })));
    assert!(matches!(segment::remove(&name), Err(Error::NameNotFound { .. })));
}

#[test]
fn writes_are_seen_by_all_attached_even_after_the_name_is_gone() {
    let names = Names::new();
    let name = names.name("a");
    let mut m = make(&name).unwrap();
    let other = attach(&name).unwrap();
    m.view_mut()[[2, 3]] = f64::MIN_POSITIVE;
    drop(m);
    assert_eq!(other.view()[[2, 3]].to_bits(), f64::MIN_POSITIVE.to_bits());
}

#[test]
fn what_is_removed_between_open_and_lock_is_not_attached() {
    let names = Names::new();
    let name = names.name("a");
    std::fs::copy(support::golden("c_order.npy"), shm(&name)).unwrap();
    let file = std::fs::File::open(shm(&name)).unwrap();
    file.lock().unwrap();
    std::thread::scope(|scope| {
        let attaching = scope.spawn(|| attach(&name).map(drop));
        let opened = |fd: std::io::Result<std::fs::DirEntry>| {
            fd.is_ok_and(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == shm(&name)))
        };
        assert!(eventually(|| std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|fd| opened(fd).then_some(()))
            .count()
            == 2));
        std::thread::sleep(std::time::Duration::from_millis(20)); // from open to lock
        std::fs::remove_file(shm(&name)).unwrap();
        file.unlock().unwrap();
        let refused = attaching.join().unwrap().unwrap_err();
        assert!(matches!(refused, Error::NameNotFound { .. }), "{refused}");
    });
}

#[test]
fn an_attached_array_never_takes_the_name_away() {
    let names = Names::new();
    let name = names.name("a");
    let m = make(&name).unwrap();
    let mut holder = Holder::start(player(plays_a_role, &format!("attach {name}")));
    assert_eq!(holder.says(), m.view().sum().to_string());
    holder.let_go();
    drop(attach(&name).unwrap());
    assert!(shm(&name).exists());
}

#[test]
fn a_nameless_array_has_no_name_until_it_is_published() {
    let names = Names::new();
    let (name, other) = (names.name("a"), names.name("b"));
    let mut m = SharedArray::copy_from(None, &array![1.0, 2.0, 3.0]).unwrap();
    assert!(m.name().is_none() && names.left().is_empty());
    assert!(matches!(m.persist(), Err(Error::Nameless)));
    m.publish(&name).unwrap();
    assert_eq!((m.name(), mode(&name)), (Some(name.as_str()), 0o1600));
    assert_eq!(SharedArray::<f64, Ix1>::read_copy(&name).unwrap(), m.view());
    assert!(matches!(m.publish(&other), Err(Error::AlreadyNamed { name: n , .. }) if n == name));
    let mut second = SharedArray::<f64, _>::zeros(None, 3).unwrap();
    assert!(matches!(second.publish(&name), Err(Error::NameInUse { live: Some(true), .. })));
    second.publish(&other).unwrap();
}

#[test]
fn a_persisted_array_outlives_its_maker_until_removed() {
    let names = Names::new();
    let name = names.name("a");
    let mut m = make(&name).unwrap();
    m.persist().unwrap();
    assert!(matches!(segment::remove(&name), Err(Error::InUse { .. })));
    let expected = m.to_owned();
    drop(m);
    assert_eq!((mode(&name), attach(&name).unwrap().to_owned()), (0o600, expected));
    let info = || segment::list().unwrap().into_iter().find(|s| s.name == name).unwrap();
    assert!(eventually(|| !info().live));
    assert_eq!((info().shape, info().bytes, info().volatile), (vec![3, 4], 4096 + 96, false));
    assert!(eventually(|| matches!(make(&name), Err(Error::NameInUse { live: Some(false), .. }))));
    assert!(eventually(|| segment::remove(&name).is_ok()));
    assert!(!shm(&name).exists());
}

#[test]
fn a_name_that_leads_elsewhere_by_now_is_left_alone() {
    failpoints::throw_by_environment();
    let names = Names::new();
    let name = names.name("a");
    let m = make(&name).unwrap();
    std::fs::remove_file(shm(&name)).unwrap();
    std::fs::write(shm(&name), "somebody else's").unwrap();
    drop(m);
    assert_eq!(std::fs::read(shm(&name)).unwrap(), b"somebody else's");
    std::fs::remove_file(shm(&name)).unwrap();
}

#[test]
fn what_stands_at_a_name_is_neither_overwritten_nor_followed() {
    let names = Names::new();
    let (target, name) = (names.name("target"), names.name("a"));
    std::fs::write(shm(&target), "precious").unwrap();
    let path = shm(&name);
    let kinds: [(&str, &dyn Fn()); 4] = [
        ("directory", &|| std::fs::create_dir(&path).unwrap()),
        ("symbolic link", &|| std::os::unix::fs::symlink(shm(&target), &path).unwrap()),
        ("fifo", &|| nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("regular file", &|| std::fs::write(&path, "precious").unwrap()),
    ];
    for (kind, put) in kinds {
        put();
        assert!(matches!(make(&name), Err(Error::NameInUse { live: Some(false), .. })), "{kind}");
        let mut nameless = SharedArray::<f64, _>::zeros(None, 3).unwrap();
        assert!(
            matches!(nameless.publish(&name), Err(Error::NameInUse { live: Some(false), .. })),
            "{kind}"
        );
        for refused in [attach(&name).map(drop), segment::remove(&name)] {
            match refused.unwrap_err() {
                Error::NotRegular { kind: found, .. } => assert_eq!(found, kind),
                Error::Npy { .. } => assert_eq!(kind, "regular file"),
                other => panic!("{kind}: {other}"),
            }
        }
        std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).unwrap();
    }
    assert_eq!(std::fs::read(shm(&target)).unwrap(), b"precious");
    std::fs::remove_file(shm(&target)).unwrap();
}

#[test]
fn of_64_racers_for_a_name_exactly_one_wins() {
    let names = Names::new();
    let name = names.name("a");
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let role = format!("race {name} {}", go.display());
    let mut racers: Vec<Holder> =
        (0..64).map(|_| Holder::start(player(plays_a_role, &role))).collect();
    std::fs::write(&go, "").unwrap();
    let said: Vec<String> = racers.iter_mut().map(Holder::says).collect();
    assert_eq!(said.iter().filter(|s| *s == "won").count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|s| *s == "in use").count(), 63, "{said:?}");
    racers.into_iter().for_each(Holder::let_go);
}

#[test]
fn a_sweep_takes_dead_volatile_segments_and_nothing_else() {
    let names = Names::new();
    let [dead, live, lasting, numpy, program, foreign_bits, link, fifo] =
        ["dead", "live", "lasting", "numpy", "program", "foreign-bits", "link", "fifo"]
            .map(|tag| names.name(tag));
    let write = |name: &str, bytes: &[u8], mode: u32| {
        std::fs::write(shm(name), bytes).unwrap();
        std::fs::set_permissions(shm(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    make(&lasting).unwrap().persist().unwrap();
    let mut holder = Holder::start(player(plays_a_role, &format!("hold {live}")));
    assert_eq!(holder.says(), "ready");
    let golden = std::fs::read(support::golden("c_order.npy")).unwrap();
    write(&numpy, &golden, 0o1600); // the bit alone does not make it ours
    write(&program, b"state of some other program", 0o1600);
    // A segment by its layout, with mode bits that we do not set.
    write(&foreign_bits, &std::fs::read(shm(&lasting)).unwrap(), 0o1660);
    nix::unistd::mkfifo(&shm(&fifo), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let others = is_root().then(|| {
        let name = names.name("other-user");
        // A user that no other test plays: its programs would sweep this up, and rightly.
        let mut holder =
            Holder::start(as_player(plays_a_role, user_ids("65533"), &format!("hold {name}")));
        assert_eq!(holder.says(), "ready");
        holder.kill();
        name
    });
    if others.is_none() {
        skip("another user's segment in the sweep: only root can make one");
    }
    let mut victim = Holder::start(player(plays_a_role, &format!("hold {dead}")));
    assert_eq!(victim.says(), "ready");
    std::os::unix::fs::symlink(shm(&dead), shm(&link)).unwrap();
    victim.kill();
    assert!(segment::list().unwrap().iter().any(|s| s.name == live && s.live && s.volatile));

    // By us, or by a program that started meanwhile.
    let mut swept = Vec::new();
    let gone = eventually(|| {
        swept.extend(segment::sweep().unwrap());
        !shm(&dead).exists()
    });

    assert!(gone, "not swept: {swept:?}");
    let mut spared = vec![&live, &lasting, &numpy, &program, &foreign_bits, &link, &fifo];
    spared.extend(&others);
    for name in &spared {
        assert!(
            std::fs::symlink_metadata(shm(name)).is_ok() && !swept.contains(name),
            "{name} was swept"
        );
    }
    holder.let_go();
    assert!(!shm(&live).exists(), "its maker dropped it");
    spared.retain(|name| **name != live);
    for name in spared {
        std::fs::remove_file(shm(name)).unwrap();
    }
}

#[test]
fn other_users_cannot_open_remove_or_cut_a_segment() {
    if !is_root() {
        return skip("only root can become another user");
    }
    let names = Names::new();
    let name = names.name("private");
    let m = make(&name).unwrap();
    succeeds(as_player(plays_a_role, user_ids(NOBODY), &format!("stranger {name} 0")));
    assert_eq!(attach(&name).unwrap().view(), m.view());
}

#[test]
fn the_umask_neither_opens_nor_locks_a_segment() {
    let names = Names::new();
    for umask in ["0", "777"] {
        let role = format!("umask {umask} {}", names.name("umask"));
        let mut commands = vec![player(plays_a_role, &role)];
        if is_root() {
            commands.push(as_player(plays_a_role, user_ids(NOBODY), &role));
        }
        for command in commands {
            succeeds(command);
        }
    }
}

#[test]
fn every_layout_is_copied_in_parallel_as_it_reads() {
    // 8.5 MB: five chunks.
    let base = Array2::from_shape_fn((1030, 1031), |(i, j)| (i * 1031 + j) as f64);
    let row = base.slice(s![..1, ..]);
    let views = [
        base.view(),
        base.t(),
        base.slice(s![..;-1, ..]),
        base.slice(s![.., ..;-1]),
        base.slice(s![..;2, 1..;3]),
        row.broadcast((1030, 1031)).unwrap(),
    ];
    for view in views {
        let m = SharedArray::copy_from(None, &view).unwrap();
        assert_eq!(m.view(), view);
    }
    let filled =
        SharedArray::from_shape_fn(None, (1030, 1031), |(i, j)| (i * 1031 + j) as f64).unwrap();
    assert_eq!(filled.view(), base);
}

#[test]
fn a_panic_of_the_index_function_leaves_nothing() {
    let names = Names::new();
    for n_rows in [3, 3000] {
        let name = names.name("panic");
        let caught = std::panic::catch_unwind(|| {
            SharedArray::from_shape_fn(name.as_str(), (n_rows, 1000), |(i, j)| {
                assert!(i < n_rows - 1 || j < 500, "no such element");
                1.0
            })
        });
        assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "no such element");
        assert!(names.left().is_empty());
    }
}

#[test]
fn no_descriptor_and_no_mapping_is_leaked_errors_included() {
    let names = Names::new();
    succeeds(player(plays_a_role, &format!("leaks {}", names.name("a"))));
}

#[test]
fn a_forked_child_drops_and_makes_arrays_and_removes_no_name() {
    let names = Names::new();
    succeeds(player(plays_a_role, &format!("fork {}", names.name("a"))));
}

/// In a process of its own, with rayon's threads running in the parent and gone in the child.
fn drops_in_a_forked_child(name: &str) {
    let m = make(name).unwrap();
    let expected = SharedArray::from_shape_fn(None, (1000, 1000), |(i, j)| (i + j) as f64).unwrap();
    // SAFETY: the child's memory allocator is fork-safe (glibc), and it leaves by `_exit`.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            nix::unistd::alarm::set(20); // waiting for rayon would be for ever
            drop(m);
            let own =
                SharedArray::from_shape_fn(None, (1000, 1000), |(i, j)| (i + j) as f64).unwrap();
            let code = i32::from(own.view() != expected.view() || !shm(name).exists());
            // SAFETY: ends the child without running the parent's exit handlers a second time.
            unsafe { libc::_exit(code) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            let ended = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0));
            assert!(shm(name).exists());
            assert_eq!(m.view()[[2, 3]], 23.0);
        }
    }
}

/// In a process of its own: other tests open files too.
fn looks_for_leaks(name: &str) {
    let (taken, damaged) = (format!("{name}-taken"), format!("{name}-damaged"));
    let _taken = make(&taken).unwrap();
    std::fs::write(shm(&damaged), "not a segment").unwrap();
    let held = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        (open_descriptors(), maps.matches("/dev/shm/").count())
    };
    let before = held();
    for _ in 0..300 {
        let m = make(name).unwrap();
        drop(attach(name).unwrap());
        drop(m);
        assert!(make(&taken).is_err() && attach(&damaged).is_err() && attach(name).is_err());
        assert!(SharedArray::<f64, Ix2>::zeros(None, (usize::MAX, 8)).is_err());
        assert!(SharedArray::<f64, Ix1>::zeros(None, 1 << 58).is_err());
        assert!(segment::sweep().is_ok() && segment::list().is_ok());
        let f = |_| if true { panic!("as always") } else { 0.0 };
        assert!(std::panic::catch_unwind(|| SharedArray::from_shape_fn(name, 3, f)).is_err());
    }
    assert_eq!(held(), before);
    std::fs::remove_file(shm(&damaged)).unwrap();
}

#[test]
fn a_segment_is_kept_out_of_core_dumps_and_has_huge_pages() {
    let m = SharedArray::<f64, _>::zeros(None, (1 << 20) + 1000).unwrap(); // 8 MiB and a tail
    let address = m.as_ptr() as usize - 4096;
    assert_eq!(address % (2 << 20), 0);
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let ours = smaps.split_once(&format!("{address:x}-")).expect("mapped").1;
    let field = |key: &str| {
        ours.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned()
    };
    assert!(field("VmFlags:").split(' ').any(|flag| flag == "dd"), "{}", field("VmFlags:"));
    let pages = m.pages().unwrap();
    assert_eq!(pages.huge_bytes + pages.small_bytes, 4096 + m.len() * 8);
    if pages.huge_bytes == 0 {
        return skip("this kernel gave no huge pages");
    }
    assert_eq!(pages.huge_bytes, 8 << 20);
    assert_eq!(field("ShmemPmdMapped:"), "8192 kB");
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[
        (
            Failpoint::CompareNamesNotInodes,
            name_of(a_name_that_leads_elsewhere_by_now_is_left_alone),
        ),
        (
            Failpoint::AnyProcessRemovesName,
            name_of(a_forked_child_drops_and_makes_arrays_and_removes_no_name),
        ),
    ]);
}
