//! What a name may be given as.

/// A segment's name, or none: `"prices"`, `&string`, `string`, `Some("prices")`, `None`.
///
/// Sealed.
///
/// ```
/// use rowfork::SharedArray;
/// let name = format!("rowfork-doc-name-{}", std::process::id());
/// let named = SharedArray::<f64, _>::zeros(&name, 10)?;
/// assert_eq!(named.name(), Some(&*name));
/// assert_eq!(SharedArray::<f64, _>::zeros(None, 10)?.name(), None);
/// # Ok::<(), rowfork::Error>(())
/// ```
pub trait SegmentName: sealed::Sealed {}

impl SegmentName for &str {}
impl SegmentName for String {}
impl SegmentName for &String {}
impl SegmentName for Option<&str> {}

pub(super) mod sealed {
    pub trait Sealed {
        fn get(&self) -> Option<&str>;
    }

    impl Sealed for &str {
        fn get(&self) -> Option<&str> {
            Some(self)
        }
    }

    impl Sealed for String {
        fn get(&self) -> Option<&str> {
            Some(self)
        }
    }

    impl Sealed for &String {
        fn get(&self) -> Option<&str> {
            Some(self)
        }
    }

    impl Sealed for Option<&str> {
        fn get(&self) -> Option<&str> {
            *self
        }
    }
}
