//! Writes whole lines to a file or a pipe that may take a part of one.

use std::io::{self, Write};

/// A target of lines, which may end in the middle of one after a partial write.
pub(super) struct LineWriter<W> {
    target: W,
    torn: bool,
}

impl<W: Write> LineWriter<W> {
    /// `torn`: the target ends in the middle of a line.
    pub(super) fn new(target: W, torn: bool) -> Self {
        LineWriter { target, torn }
    }

    /// Writes whole lines and begins a new line first, so that lines after a torn one are valid.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.target.write_all(b"\n")?;
            self.torn = false;
        }
        let mut left = lines;
        while !left.is_empty() {
            match self.target.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    self.torn = left[taken - 1] != b'\n';
                    left = &left[taken..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.target.flush()
    }
}
