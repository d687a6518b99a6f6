//! [`FileRows`]: where the rows of a call lie in files on a disk, so that workers can unmap what
//! they have read.
//!
//! Without this a worker that goes through a large file would have all of it mapped in the end;
//! `sys/file_pages.rs` says why that matters. `operation.rs` releases the rows of each block once
//! the block is done. Segments are not touched: their pages stay mapped.

use std::ops::Range;

use crate::sys::file_pages;

/// How many inputs are kept account of: as many as a tuple has. The rows of further ones, in tuples
/// of tuples, stay mapped.
const MAX: usize = 9;

/// For each input that lies in such a file: the address of row 0, the distance from one row to the
/// next, and the length of a row, both in bytes.
#[derive(Debug, Default)]
pub(crate) struct FileRows([Option<[usize; 3]>; MAX]);

impl FileRows {
    /// Notes rows that begin at `address`, if that is in such a file.
    pub(super) fn add(&mut self, address: usize, stride: usize, row_bytes: usize) {
        if file_pages::contain(address)
            && let Some(free) = self.0.iter_mut().find(|part| part.is_none())
        {
            *free = Some([address, stride, row_bytes]);
        }
    }

    /// Unmaps the pages of these rows, which have been read. Another look would map them again.
    pub(super) fn release(&self, rows: &Range<usize>) {
        for [address, stride, row_bytes] in self.0.iter().map_while(|part| *part) {
            if let Some(last) = rows.end.checked_sub(1).filter(|_| !rows.is_empty()) {
                file_pages::release(
                    &(address + rows.start * stride..address + last * stride + row_bytes),
                );
            }
        }
    }
}
