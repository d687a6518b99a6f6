#![allow(unsafe_code, reason = "attaches to segments that only this test knows")]

//! What may be a name, and what an error says of one that is taken.

use ndarray::{Ix1, Ix2};
use rowfork::{Error, SharedArray, segment};

use crate::support::{Names, is_root, shm, skip};

fn make(name: &str) -> rowfork::Result<SharedArray<f64, Ix2>> {
    SharedArray::zeros(name, (3, 4))
}

fn attach(name: &str) -> rowfork::Result<SharedArray<f64, Ix2>> {
    // SAFETY: the names are this test's own.
    unsafe { SharedArray::attach(name) }
}

#[test]
fn names_that_cannot_be_files_are_refused() {
    for name in ["", "/", ".", "..", "a/b", "//a", "a\0b", &"x".repeat(256)] {
        assert!(matches!(make(name), Err(Error::InvalidName { .. })), "{name:?}");
        assert!(matches!(attach(name), Err(Error::InvalidName { .. })), "{name:?}");
        assert!(matches!(segment::remove(name), Err(Error::InvalidName { .. })), "{name:?}");
    }
    let names = Names::new();
    let longest = format!("{:x<255}", names.name("longest"));
    let m = make(&longest).unwrap();
    assert_eq!(m.name().map(str::len), Some(255));
}

#[test]
fn another_users_file_at_a_name_is_told_by_its_owner() {
    if !is_root() {
        return skip("only root can give a file away");
    }
    let names = Names::new();
    let name = names.name("squatted");
    std::fs::write(shm(&name), "another's").unwrap();
    std::os::unix::fs::chown(shm(&name), Some(65534), Some(65534)).unwrap();
    let refused = make(&name).unwrap_err();
    assert!(matches!(refused, Error::NameInUse { owner_uid: 65534, live: None, .. }), "{refused}");
    assert!(
        refused.to_string().contains("uid 65534") && !refused.to_string().contains("remove it"),
        "{refused}"
    );
    std::fs::remove_file(shm(&name)).unwrap();
}

#[test]
fn removal_is_advised_only_where_it_is_possible_with_the_reason() {
    let names = Names::new();
    let name = names.name("a");
    let made = make(&name).unwrap();
    let refused = make(&name).unwrap_err().to_string();
    assert!(
        refused.contains("a process has it open") && !refused.contains("remove it"),
        "{refused}"
    );
    drop(made);
    std::fs::write(shm(&name), "").unwrap();
    let refused = make(&name).unwrap_err().to_string();
    assert!(refused.contains("remove it first"), "{refused}");
    std::fs::remove_file(shm(&name)).unwrap();
    let refused = SharedArray::<f64, Ix2>::from_npy_file(None, "/no/such/file").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot open /no/such/file: No such file or directory (os error 2)"
    );
    // The cause is in the variant and in the text, so a chain of sources does not repeat it.
    assert!(std::error::Error::source(&refused).is_none());
    let not_found = std::io::ErrorKind::NotFound;
    assert!(matches!(refused, Error::Os { cause, .. } if cause.kind() == not_found));
}

#[test]
fn a_name_may_be_given_as_any_kind_of_string() {
    let names = Names::new();
    let name = names.name("a");
    for made in [
        SharedArray::<f64, Ix1>::zeros(&name, 3),
        SharedArray::zeros(name.clone(), 3),
        SharedArray::zeros(name.as_str(), 3),
        SharedArray::zeros(Some(&*name), 3),
    ] {
        // They live all at a time, and the first has the name.
        match made {
            Ok(made) => assert_eq!(made.name(), Some(&*name)),
            Err(refused) => assert!(matches!(refused, Error::NameInUse { .. }), "{refused}"),
        }
    }
}
