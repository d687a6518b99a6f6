//! Marshalling: the arguments of a call as words, written in one process and read in another. A
//! pool's workers need them, since they were forked before the call and have no copy of the
//! caller's memory. In fork mode nothing is marshalled.
//!
//! The caller fills a [`PackedArgs`], and a worker reads the words with an [`ArgReader`], in the
//! same order. A shared array is packed as the number of its segment among those of the call and an
//! offset in it, since a worker may have it mapped at another address. Everything else is packed by
//! value. Nothing is validated on arrival: the pool seals the record that the words are in, and
//! opens it only whole.
//!
//! # Safety
//! [`Marshal::unpack`] makes references and function pointers of words. It is sound on the words
//! that [`Marshal::pack`] of the same type has written in a process with the same program at the
//! same addresses, while the segments that the `ArgReader` was given are mapped. The executor sees
//! to both, and says so at its one call.
#![allow(unsafe_code, reason = "makes references of words")]

use std::fs::File;
use std::mem::MaybeUninit;

use bytemuck::Pod;
use ndarray::{ArrayView, Axis, Dimension, ShapeBuilder};

use crate::segment::Segment;

/// The arguments of a call as words, and the segments that they refer to.
#[derive(Debug, Default)]
pub(crate) struct PackedArgs<'s> {
    words: Vec<u64>,
    /// Each segment once. The words refer to a segment by its index here.
    segments: Vec<&'s Segment>,
    /// Addresses of functions among the words. The workers must have code there.
    code: Vec<usize>,
}

impl<'s> PackedArgs<'s> {
    /// No arguments yet, in memory that was used before.
    pub(crate) fn in_words(mut words: Vec<u64>) -> Self {
        words.clear();
        Self { words, segments: Vec::with_capacity(4), code: Vec::new() }
    }

    /// The words that have been packed.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The segments that the words refer to, in the order of their numbers.
    pub(crate) fn segments(&self) -> &[&'s Segment] {
        &self.segments
    }

    /// The addresses that must be those of the same code in the process that unpacks the words.
    pub(crate) fn code(&self) -> &[usize] {
        &self.code
    }

    /// Packs a kernel that is a function pointer, or has no bytes.
    pub(crate) fn kernel<K>(&mut self, word: u64) {
        self.word(word);
        if size_of::<K>() > 0 {
            self.code.push(usize::try_from(word).unwrap_or(usize::MAX));
        }
    }

    /// The memory of the words, for the next call's arguments.
    pub(crate) fn into_words(self) -> Vec<u64> {
        self.words
    }

    /// Packs a word.
    pub(crate) fn word(&mut self, word: u64) {
        self.words.push(word);
    }

    /// Packs a length or an index.
    pub(crate) fn size(&mut self, size: usize) {
        self.words.push(size as u64);
    }

    /// Packs a place in a segment: that of `pointer`, which points into the segment's mapping. It
    /// becomes the segment's number and an offset in bytes.
    pub(crate) fn place<A>(&mut self, segment: &'s Segment, pointer: *const A) {
        let known = self.segments.iter().position(|other| other.id() == segment.id());
        let number = known.unwrap_or_else(|| {
            self.segments.push(segment);
            self.segments.len() - 1
        });
        self.size(number);
        self.size(pointer.addr() - segment.address());
    }

    /// Packs plain values by value, from a whole word on. The last word is filled up with zeros.
    pub(crate) fn values<P: Pod>(&mut self, values: impl ExactSizeIterator<Item = P>) {
        let bytes = values.len() * size_of::<P>();
        let start = self.words.len();
        self.words.resize(start + bytes.div_ceil(size_of::<u64>()), 0);
        let room: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words[start..]);
        for (room, value) in room.chunks_exact_mut(size_of::<P>().max(1)).zip(values) {
            room.copy_from_slice(bytemuck::bytes_of(&value));
        }
    }

    /// Packs the shape of an array: the number of axes, then their lengths.
    pub(crate) fn shape(&mut self, shape: &[usize]) {
        self.size(shape.len());
        self.words.extend(shape.iter().map(|&len| len as u64));
    }
}

/// A segment as a worker has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MappedSegment<'w> {
    /// Where it is mapped in the worker. Writable only if the call writes to it.
    pub(crate) start: *mut u8,
    pub(crate) file: &'w File,
}

/// Reads the packed arguments of a call in a worker, from the first word to the last.
///
/// # Panics
/// Its methods panic when they read more than was packed, which the executor's seal excludes.
#[derive(Debug)]
pub(crate) struct ArgReader<'w> {
    /// What is not read yet.
    words: &'w [u64],
    segments: &'w [Option<MappedSegment<'w>>],
}

impl<'w> ArgReader<'w> {
    /// Reads words that refer to these segments by their indices.
    pub(crate) fn new(words: &'w [u64], segments: &'w [Option<MappedSegment<'w>>]) -> Self {
        Self { words, segments }
    }

    /// The next word.
    pub(crate) fn word(&mut self) -> u64 {
        let (&word, rest) = self.words.split_first().expect("as many words as were packed");
        self.words = rest;
        word
    }

    /// A length or an index.
    pub(crate) fn size(&mut self) -> usize {
        usize::try_from(self.word()).expect("packed from a size")
    }

    /// A place in a segment, as an address in this process, and the segment's file.
    pub(crate) fn place<A>(&mut self) -> (*mut A, &'w File) {
        let number = self.size();
        let MappedSegment { start, file } =
            self.segments[number].expect("as many segments as were packed");
        (start.wrapping_add(self.size()).cast(), file)
    }

    /// `len` plain values, as bytes. They stay where they are, among the words.
    pub(crate) fn values<P: Pod>(&mut self, len: usize) -> &'w [u8] {
        let bytes = len * size_of::<P>();
        let (values, rest) = self.words.split_at(bytes.div_ceil(size_of::<u64>()));
        self.words = rest;
        &bytemuck::cast_slice(values)[..bytes]
    }

    /// The shape of an array.
    pub(crate) fn shape<D: Dimension>(&mut self) -> D {
        let n_axes = self.size();
        let mut dim = D::zeros(n_axes);
        dim.slice_mut().iter_mut().for_each(|len| *len = self.size());
        dim
    }
}

/// An argument that can be marshalled: packed in the caller, and unpacked in a worker that was
/// forked before the call.
pub(crate) trait Marshal: Clone {
    /// Appends the words of this argument.
    fn pack(&self, args: &mut PackedArgs<'_>);

    /// Reads the words that [`pack`](Self::pack) has appended, and makes the same argument of them.
    ///
    /// # Safety
    /// The words are those of `pack` for this very type, from a process of the same program; and
    /// the reader's words and segments outlive every use of the value, whatever lifetime `Self`
    /// has.
    unsafe fn unpack(words: &mut ArgReader<'_>) -> Self;
}

impl Marshal for () {
    fn pack(&self, _args: &mut PackedArgs<'_>) {}

    unsafe fn unpack(_words: &mut ArgReader<'_>) -> Self {}
}

/// A plain value as an argument.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PodArg<P>(pub(crate) P);

impl<P: Pod> Marshal for PodArg<P> {
    fn pack(&self, args: &mut PackedArgs<'_>) {
        args.values(std::iter::once(self.0));
    }

    unsafe fn unpack(words: &mut ArgReader<'_>) -> Self {
        Self(bytemuck::pod_read_unaligned(words.values::<P>(1)))
    }
}

/// The shape of an array as an argument.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShapeArg<D>(pub(crate) D);

impl<D: Dimension> Marshal for ShapeArg<D> {
    fn pack(&self, args: &mut PackedArgs<'_>) {
        args.shape(self.0.slice());
    }

    unsafe fn unpack(words: &mut ArgReader<'_>) -> Self {
        Self(words.shape())
    }
}

/// An array in the caller's own memory as an argument. It is packed by value, in C order.
#[derive(Debug, Clone)]
pub(crate) struct ByValue<'a, A, D: Dimension>(pub(crate) ArrayView<'a, A, D>);

impl<A: Pod, D: Dimension> Marshal for ByValue<'_, A, D> {
    fn pack(&self, args: &mut PackedArgs<'_>) {
        args.shape(self.0.shape());
        args.values(self.0.iter().copied());
    }

    unsafe fn unpack(words: &mut ArgReader<'_>) -> Self {
        const { assert!(align_of::<A>() <= align_of::<u64>(), "values begin at a whole word") };
        let dim: D = words.shape();
        let values = words.values::<A>(dim.size());
        // SAFETY: as many initialised values as the shape has, aligned as a word is; they live as
        // long as the caller of `unpack` promises.
        Self(unsafe { ArrayView::from_shape_ptr(dim, values.as_ptr().cast()) })
    }
}

/// Packs a view of a part of a shared array: the place of its first element, its shape and its
/// strides. The elements stay where they are.
pub(crate) fn pack_view<'s, A, D: Dimension>(
    view: &ArrayView<'_, A, D>,
    segment: &'s Segment,
    args: &mut PackedArgs<'s>,
) {
    args.place(segment, view.as_ptr());
    args.shape(view.shape());
    for &stride in view.strides() {
        args.size(stride.cast_unsigned());
    }
}

/// Makes the same view of the segment as it is mapped in this process.
///
/// # Safety
/// As for [`Marshal::unpack`], after [`pack_view`] with the same types.
pub(crate) unsafe fn unpack_view<'v, A, D: Dimension>(
    words: &mut ArgReader<'_>,
) -> ArrayView<'v, A, D> {
    let (first, _) = words.place::<A>();
    let dim: D = words.shape();
    let mut strides = dim.clone();
    let mut lowest = first;
    let mut turned = Vec::new();
    for (axis, stride) in strides.slice_mut().iter_mut().enumerate() {
        let packed = words.size().cast_signed();
        *stride = packed.unsigned_abs();
        if packed < 0 {
            // ndarray makes no view with a negative stride from a pointer. So the view begins with
            // the element that is first in memory, and the axis is turned round afterwards.
            turned.push(Axis(axis));
            lowest = lowest.wrapping_offset(packed * dim[axis].saturating_sub(1).cast_signed());
        }
    }
    // SAFETY: the elements of the view that was packed, in the same segment at the same offsets.
    let mut view = unsafe { ArrayView::from_shape_ptr(dim.strides(strides), lowest) };
    for axis in turned {
        view.invert_axis(axis);
    }
    view
}

/// A kernel of no bytes, or of the size of a word, as a word. A closure becomes [`CAPTURES`].
///
/// # Panics
/// At compile time, for any other type.
pub(crate) fn to_word<K: Copy>(value: &K) -> u64 {
    const { assert!(fits_word::<K>(), "a kernel for a pool captures nothing: see `rowfork::param`") };
    let mut word = 0u64;
    // Some bytes of what a closure captures may be padding, which must not be read.
    if is_closure::<K>() {
        return CAPTURES;
    }
    // SAFETY: at most as many bytes as a word has, of a live value; a pointer among them loses its
    // provenance, which is that of code.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(value).cast::<u8>(),
            (&raw mut word).cast(),
            size_of::<K>(),
        );
    };
    word
}

/// The kernel that [`to_word`] has made this word of.
///
/// # Safety
/// As for [`Marshal::unpack`]; and what the value points to, if it is a pointer, is there in this
/// process, too.
pub(crate) unsafe fn from_word<K: Copy>(word: u64) -> K {
    const { assert!(fits_word::<K>()) };
    let mut value = MaybeUninit::<K>::uninit();
    // SAFETY: as in `to_word`.
    unsafe {
        std::ptr::copy_nonoverlapping(
            (&raw const word).cast::<u8>(),
            value.as_mut_ptr().cast(),
            size_of::<K>(),
        );
    };
    // SAFETY: the bytes of a value of this type, which is `Copy`.
    unsafe { value.assume_init() }
}

/// What [`to_word`] makes of a closure. The word of a closure that captures nothing is never used,
/// and a closure that captures something is refused by this word.
pub(crate) const CAPTURES: u64 = 0;

/// Whether a type is a closure, or a reference to a function. It goes by the name of the type, as
/// the compiler gives it, since nothing else tells a closure of 8 bytes from a function pointer.
fn is_closure<K>() -> bool {
    let name = std::any::type_name::<K>();
    name.ends_with("{{closure}}") || name.starts_with('&')
}

/// Whether a kernel has no bytes (a closure without captures, a function by name) or those of a
/// function pointer.
const fn fits_word<K>() -> bool {
    size_of::<K>() == 0
        || size_of::<K>() == size_of::<u64>() && align_of::<K>() <= align_of::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of<K: Copy>(_: &K) -> (bool, usize) {
        (is_closure::<K>(), size_of::<K>())
    }

    #[test]
    fn closures_are_told_from_functions() {
        let (number, flag) = (7_u32, true);
        assert_eq!(name_of(&move |x: u32| x + number + u32::from(flag)), (true, 8));
        assert_eq!(name_of(&|x: u32| x), (true, 0));
        assert_eq!(name_of(&u32::count_ones), (false, 0));
        let by_reference: &'static fn(u32) -> u32 = &(u32::count_ones as fn(u32) -> u32);
        assert_eq!(name_of(&by_reference), (true, 8));
        let pointer: fn(u32) -> u32 = |x| x;
        assert_eq!(name_of(&pointer), (false, 8));
        assert_eq!(to_word(&pointer), pointer as usize as u64);
        assert_eq!(to_word(&move |x: u32| x + number + u32::from(flag)), CAPTURES);
    }

    #[test]
    fn a_function_pointer_arrives_as_it_was() {
        let pointer: fn(u32) -> u32 = u32::count_ones;
        // SAFETY: made of this type, in this process.
        let arrived: fn(u32) -> u32 = unsafe { from_word(to_word(&pointer)) };
        assert_eq!(arrived(7), 3);
    }
}
