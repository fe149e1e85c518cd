//! Work that blocks, on the threads of the runtime for it. In the simulation of nodes, which has one thread, it runs at
//! once.

use tokio::{runtime::Handle, task};

use crate::simulated;

/// Runs it and waits for the result.
///
/// # Errors
/// When it has panicked.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, task::JoinError> {
    if simulated::is_on() {
        return Ok(work());
    }
    task::spawn_blocking(work).await
}

/// Runs it, unless the runtime has ended.
pub(crate) fn detach<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) {
    if simulated::is_on() {
        work();
    } else if let Ok(runtime) = Handle::try_current() {
        runtime.spawn_blocking(work);
    }
}
