//! The layout of an open directory: a change is durable before readers see it, and they never wait for the disk.

use parking_lot::Mutex;

use super::layout::Layout;
use crate::StorageError;

/// The layout of an open directory.
pub(crate) struct OpenLayout {
    current: Mutex<Layout>,
    /// Held while a change is written.
    writing: Mutex<()>,
}

impl OpenLayout {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { current: Mutex::new(layout), writing: Mutex::new(()) }
    }

    /// Reads it.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Layout) -> T) -> T {
        read(&self.current.lock())
    }

    /// Changes it. `change` makes the change durable.
    ///
    /// # Errors
    /// Those of `change`; readers then see the layout of before.
    pub(crate) fn change(
        &self,
        change: impl FnOnce(&mut Layout) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.change_and(change, || {})
    }

    /// Changes it, and calls `then` once the change is durable and before readers see it.
    ///
    /// # Errors
    /// As [`change`](Self::change).
    pub(crate) fn change_and(
        &self,
        change: impl FnOnce(&mut Layout) -> Result<(), StorageError>,
        then: impl FnOnce(),
    ) -> Result<(), StorageError> {
        let _writing = self.writing.lock();
        let mut next = self.read(Layout::clone);
        change(&mut next)?;
        then();
        *self.current.lock() = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::sim_disk::{Fault, SimDisk};

    #[test]
    fn readers_see_a_change_when_it_is_durable() {
        let disk = SimDisk::new(1);
        let layout = OpenLayout::new(Layout::open(&disk, Some("n")).unwrap());
        disk.fail_at(disk.operations(), Fault::Error);
        assert!(layout.change(|layout| layout.remove(&disk)).is_err());
        assert!(!layout.read(|layout| layout.removed));
        // While it is written they see the one of before.
        let change = |next: &mut Layout| {
            assert!(!layout.read(|layout| layout.removed));
            next.remove(&disk)
        };
        layout.change_and(change, || assert!(!layout.read(|layout| layout.removed))).unwrap();
        assert!(layout.read(|layout| layout.removed) && Layout::open(&disk, None).unwrap().removed);
    }
}
