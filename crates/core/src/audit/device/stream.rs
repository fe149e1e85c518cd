//! Standard output or a pipe: a thread writes, because its reader may be slow.

use std::io;
use std::sync::mpsc;

use tokio::sync::oneshot;

use super::line_writer::LineWriter;
use super::{Device, Ticket};
use crate::audit::line::Line;

/// The most queued entries of a pipe.
pub(super) const QUEUE: usize = 1024;

/// A stream with a queue. When the queue is full, entries are refused.
pub(crate) struct StreamDevice {
    lines: mpsc::SyncSender<(Line, oneshot::Sender<io::Result<()>>)>,
}

impl StreamDevice {
    pub(crate) fn new(target: Box<dyn io::Write + Send>) -> io::Result<Self> {
        let (lines, incoming) = mpsc::sync_channel::<(Line, oneshot::Sender<io::Result<()>>)>(QUEUE);
        let mut target = LineWriter::new(target, false);
        std::thread::Builder::new().name("audit-stream".into()).spawn(move || {
            while let Ok((line, done)) = incoming.recv() {
                // The ticket may be dropped; the entry is written anyway.
                let _ = done.send(target.write(&line));
            }
        })?;
        Ok(StreamDevice { lines })
    }
}

/// The failure of an entry whose thread has ended.
pub(super) fn ended() -> io::Error {
    io::Error::other("the audit stream ended")
}

impl Device for StreamDevice {
    fn submit(&self, line: Line) -> Ticket<'_> {
        let (done, written) = oneshot::channel();
        match self.lines.try_send((line, done)) {
            Ok(()) => Ticket::Queued(written),
            Err(_) => Ticket::Done(Err(io::Error::new(io::ErrorKind::WouldBlock, "nobody reads the audit stream"))),
        }
    }

    fn reopen(&self) -> io::Result<()> {
        Ok(())
    }

    fn can_block(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _};
    use std::sync::Arc;
    use std::thread::JoinHandle;

    use parking_lot::{Mutex, MutexGuard};

    use super::*;
    use crate::audit::device::suite::{Target, device_suite};

    struct Pipe {
        device: StreamDevice,
        gate: Arc<Mutex<()>>,
        reader: JoinHandle<Vec<u8>>,
    }

    impl Target for Pipe {
        fn new() -> Self {
            let (reader, writer) = io::pipe().unwrap();
            let gate = Arc::new(Mutex::new(()));
            let reader = std::thread::spawn({
                let gate = gate.clone();
                move || read(reader, &gate)
            });
            Pipe { device: StreamDevice::new(Box::new(writer)).unwrap(), gate, reader }
        }

        fn failing() -> Self {
            let (reader, writer) = io::pipe().unwrap();
            drop(reader);
            Pipe { device: StreamDevice::new(Box::new(writer)).unwrap(), ..Pipe::new() }
        }

        fn device(&self) -> &dyn Device {
            &self.device
        }

        fn stall(&self) -> Option<MutexGuard<'_, ()>> {
            Some(self.gate.lock())
        }

        fn finish(self) -> Vec<u8> {
            drop(self.device);
            self.reader.join().unwrap()
        }
    }

    fn read(mut reader: PipeReader, gate: &Mutex<()>) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 512];
        loop {
            drop(gate.lock());
            match reader.read(&mut buffer).unwrap() {
                0 => return all,
                taken => all.extend_from_slice(&buffer[..taken]),
            }
        }
    }

    device_suite!(stream, Pipe);
}
