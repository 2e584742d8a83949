//! Lines of bounded length, made readable.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// So many bytes of a line are kept. The rest is counted, not stored.
pub const LINE_MAX: usize = 8 * 1024;

/// The lines of a stream, one at a time, in bounded memory whatever the stream holds.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    line: Vec<u8>,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        Self { input, line: Vec::new() }
    }

    /// The next line without its end, readable by [`clean`]; a line longer than [`LINE_MAX`] bytes is cut there
    /// and says so. None at the end of the stream.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn next(&mut self) -> io::Result<Option<String>> {
        self.line.clear();
        let mut cut: u64 = 0;
        let mut any = false;
        loop {
            let chunk = self.input.fill_buf().await?;
            if chunk.is_empty() {
                break;
            }
            any = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let text = &chunk[..end.unwrap_or(chunk.len())];
            let keep = text.len().min(LINE_MAX - self.line.len());
            self.line.extend_from_slice(&text[..keep]);
            cut += (text.len() - keep) as u64;
            let used = text.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        let mut line = clean(self.line.strip_suffix(b"\r").unwrap_or(&self.line));
        if cut > 0 {
            line.push_str(&format!(" … ({cut} more bytes)"));
        }
        Ok(Some(line))
    }
}

/// Text that a terminal shows and does not obey: what is no UTF-8 and every control character but the tab is
/// written out. A service may log what a stranger sent it.
pub fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.chars().any(|c| c.is_control() && c != '\t') {
        return text.into_owned();
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() && c != '\t' { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: &[u8], buffer: usize) -> Vec<String> {
        let mut lines = Lines::new(tokio::io::BufReader::with_capacity(buffer, input));
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(line);
        }
        found
    }

    #[tokio::test]
    async fn lines_are_found_however_they_arrive() {
        for buffer in [1, 3, 4_096] {
            assert_eq!(all(b"one\r\n\ntwo\nrest", buffer).await, ["one", "", "two", "rest"], "{buffer}");
            assert_eq!(all(b"", buffer).await, Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_and_counted() {
        let long = vec![b'x'; LINE_MAX + 5];
        let input = [&long[..], b"\nnext\n"].concat();
        for buffer in [7, 4_096, 1 << 20] {
            let found = all(&input, buffer).await;
            assert_eq!(found.len(), 2);
            assert_eq!(found[0].len(), LINE_MAX + " … (5 more bytes)".len());
            assert!(found[0].ends_with("x … (5 more bytes)"));
            assert_eq!(found[1], "next");
        }
        assert_eq!(all(&long[..LINE_MAX], 64).await[0].len(), LINE_MAX);
    }

    #[tokio::test]
    async fn what_a_terminal_would_obey_is_written_out() {
        assert_eq!(all(b"\x1b[2Jgone\x07\xff\tkept", 64).await, ["\\u{1b}[2Jgone\\u{7}\u{fffd}\tkept"]);
    }
}
