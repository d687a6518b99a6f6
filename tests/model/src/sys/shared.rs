//! Memory that all share: values that come to be where somebody first looks for them, since atomics
//! of the model's cannot be made of zero bytes.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::OnceLock;

/// As rowfork has it.
///
/// # Safety
/// None is asked for here.
pub(crate) unsafe trait AllAtomic: Any + Default + Send + Sync {}

// SAFETY: as above.
unsafe impl AllAtomic for super::atomic::AtomicU64 {}

/// The most values of one kind: a model has no more blocks, pieces and workers, and its records are
/// as short.
const MOST: usize = 6;

/// Pages, by the offsets of what lies there.
#[derive(Default)]
pub(crate) struct SharedPages([OnceLock<(usize, Box<dyn Any + Send + Sync>)>; 8]);

impl SharedPages {
    pub(crate) fn new(_len: usize) -> io::Result<Self> {
        Ok(Self::default())
    }

    pub(crate) fn keep_from_children(&self) {}

    /// The first of the `count` values that rowfork has there.
    pub(crate) fn slice_of<T: AllAtomic>(&self, offset: usize, count: usize) -> &[T] {
        let make = || -> (usize, Box<dyn Any + Send + Sync>) {
            let n = if count == 1 { 1 } else { MOST };
            (offset, Box::new((0..n).map(|_| T::default()).collect::<Vec<T>>()))
        };
        let places = self.0.iter().map(|place| place.get_or_init(make));
        let (_, values) =
            places.into_iter().find(|(at, _)| *at == offset).expect("few kinds of values");
        let values: &Vec<T> = values.downcast_ref().expect("one kind at one place");
        &values[..count.min(values.len())]
    }
}

impl fmt::Debug for SharedPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedPages")
    }
}
