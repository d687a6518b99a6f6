//! Where the rows of a call lie in files on a disk, so that workers can let go of what they have
//! read.

use std::ops::Range;

use crate::sys::file_pages;

/// More inputs than a tuple has are let be.
const MAX: usize = 9;

/// Of each input that lies in such a file: where row 0 begins, how far it is to the next, and how
/// long one is, in bytes.
#[derive(Debug, Default)]
pub(crate) struct FileRows([Option<[usize; 3]>; MAX]);

impl FileRows {
    /// Rows that begin at `address`, if that is in such a file.
    pub(super) fn add(&mut self, address: usize, stride: usize, row_bytes: usize) {
        if file_pages::contain(address)
            && let Some(free) = self.0.iter_mut().find(|part| part.is_none())
        {
            *free = Some([address, stride, row_bytes]);
        }
    }

    /// These rows have been read.
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
