//! The bytes of one file, copy-on-write in pages: a snapshot costs one reference count for each page.

use std::sync::Arc;

/// The unit of copying, in bytes. It is a matter of cost only: what a cut can tear is the model's sector.
const PAGE: usize = 4096;

/// A file's bytes. Holes read as zeros, and whatever lies past the size is kept zero, so that growing a file
/// never brings old bytes back.
#[derive(Clone, Default)]
pub(super) struct Image {
    size: u64,
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
}

impl Image {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Fills `out` from `offset`, with zeros where the file has ended; the number of bytes that exist.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        for (page, within, range) in spans(offset, out.len()) {
            let part = &mut out[range];
            match self.pages.get(page) {
                Some(Some(bytes)) => part.copy_from_slice(&bytes[within..within + part.len()]),
                _ => part.fill(0),
            }
        }
        self.size.saturating_sub(offset).min(out.len() as u64) as usize
    }

    /// Writes `data` at `offset`, growing the file where needed.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        for (page, within, range) in spans(offset, data.len()) {
            if self.pages.len() <= page {
                self.pages.resize(page + 1, None);
            }
            let bytes = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(bytes)[within..within + range.len()].copy_from_slice(&data[range]);
        }
        self.size = self.size.max(offset + data.len() as u64);
    }

    /// Cuts the file or grows it by a hole.
    pub(super) fn set_size(&mut self, size: u64) {
        if size < self.size {
            let (whole, rest) = ((size / PAGE as u64) as usize, (size % PAGE as u64) as usize);
            if rest > 0
                && let Some(Some(bytes)) = self.pages.get_mut(whole)
            {
                Arc::make_mut(bytes)[rest..].fill(0);
            }
            self.pages.truncate(whole + usize::from(rest > 0));
        }
        self.size = size;
    }

    /// All bytes.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; self.size as usize];
        self.read(0, &mut out);
        out
    }
}

/// The pages that `len` bytes at `offset` touch: page number, offset in the page, range of the buffer.
fn spans(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let (page, within) = ((at / PAGE as u64) as usize, (at % PAGE as u64) as usize);
        let start = done;
        done = len.min(start + PAGE - within);
        (start < len).then_some((page, within, start..done))
    })
}
