//! A member of a cluster: the thread that drives the state machine of `keepfast-consensus`, the threads of its disk and
//! its state, snapshots, and the interface [`Consensus`](crate::Consensus).

pub(crate) mod apply_thread;
pub(crate) mod boot;
mod clock;
mod consensus;
pub(crate) mod disk_thread;
pub(crate) mod driver;
pub(crate) mod event;
pub(crate) mod node;
mod peers;
mod published;
mod reads;
mod receive;
mod restore;
mod snapshot;
#[cfg(test)]
mod tests;
pub(crate) mod threads;
mod waiting;

pub use snapshot::SnapshotRecords;
