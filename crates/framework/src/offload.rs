//! CPU work over large inputs, kept away from the workers that serve every other request.
//!
//! Parsing, counting or hashing a body of 32 MiB takes tens of milliseconds. On an async worker it delays every request
//! of that worker, so large inputs move to a blocking thread, and only half of the processors work on them at a time.

use std::sync::LazyLock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

/// Inputs of fewer bytes are processed where they are: the move costs more than the work.
pub const LARGE: usize = 64 << 10;

/// Half of the processors, at least one.
static PROCESSORS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Semaphore::new((processors / 2).max(1))
});

/// Runs `work` over an input of `bytes` bytes and returns its result. Does not block the async workers when the input
/// is [`LARGE`].
pub async fn run<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    // A runtime of one thread has no other worker to hand its tasks to.
    if bytes < LARGE || Handle::current().runtime_flavor() != RuntimeFlavor::MultiThread {
        return work();
    }
    // The semaphore is never closed; without a permit the work runs anyway.
    let _permit = PROCESSORS.acquire().await.ok();
    tokio::task::block_in_place(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn sec_ds02_large_work_does_not_stop_the_only_worker() {
        let (started, mut begin) = tokio::sync::mpsc::unbounded_channel();
        let (end, ended) = std::sync::mpsc::channel();
        let work = tokio::spawn(run(LARGE, move || {
            started.send(()).unwrap();
            ended.recv().unwrap()
        }));
        begin.recv().await.unwrap();
        // This task runs only if the worker is free; it lets the work end.
        tokio::spawn(async move { end.send(7).unwrap() }).await.unwrap();
        assert_eq!(work.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn small_work_and_a_runtime_of_one_thread_run_in_place() {
        let here = std::thread::current().id();
        for bytes in [0, LARGE - 1, LARGE] {
            assert_eq!(run(bytes, || std::thread::current().id()).await, here);
        }
    }
}
