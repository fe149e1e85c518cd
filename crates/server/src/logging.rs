//! The log of the server: formatted on the caller's thread, written by another thread, so that a pipe without a reader
//! cannot stop the server.
//!
//! Own code and not the `NonBlocking` writer of `tracing-appender`: that cannot reopen a file between two queued lines
//! (SIGHUP), waits a fixed time for its queue at the end, and does not log how many lines it has dropped.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use keepfast_core::settings::LogLevels;
use keepfast_framework::Clock;
use keepfast_framework::clock::SystemClock;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;
use crate::log_file::LogFile;
use crate::log_levels::Levels;

/// The most lines that wait for the writer; further ones are dropped and counted.
const QUEUE: usize = 4096;

/// A log level with Vault's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level(pub(crate) LevelFilter);

impl Level {
    /// Parses a `log_level`; empty is `info`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(Level(match text.trim().to_ascii_lowercase().as_str() {
            "trace" => LevelFilter::TRACE,
            "debug" => LevelFilter::DEBUG,
            "" | "info" | "notice" => LevelFilter::INFO,
            "warn" | "warning" => LevelFilter::WARN,
            "error" | "err" => LevelFilter::ERROR,
            "off" => LevelFilter::OFF,
            _ => return None,
        }))
    }
}

/// An output that never blocks the caller: messages go through a bounded queue to a thread.
#[derive(Clone)]
pub(crate) struct Sink {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Text(Vec<u8>),
    Flush(SyncSender<()>),
    Reopen(SyncSender<io::Result<()>>),
}

/// The destination of a [`Sink`].
pub(crate) trait Output: Write + Send + 'static {
    /// Reopens the path of a file; does nothing for other outputs.
    ///
    /// # Errors
    /// When opening fails; the old file stays open.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for io::Stderr {}
impl Output for io::Stdout {}

impl Sink {
    /// Starts the thread that writes to `out`. It ends when the last clone is dropped.
    pub(crate) fn start(out: impl Output) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let sink = Sink { queue, dropped: dropped.clone() };
        std::thread::Builder::new().name("log".into()).spawn(move || drain(&waiting, &dropped, out))?;
        Ok(sink)
    }

    /// Queues a message, or counts it as dropped when the queue is full.
    pub(crate) fn write(&self, text: Vec<u8>) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Text(text)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reopens the file after the queued messages, and waits for it at most `bound`.
    ///
    /// # Errors
    /// When opening fails or takes longer.
    fn reopen(&self, bound: Duration) -> io::Result<()> {
        let (done, waiting) = sync_channel(1);
        let busy = || io::Error::other("the output is not read");
        self.queue.try_send(Message::Reopen(done)).map_err(|_| busy())?;
        waiting.recv_timeout(bound).map_err(|_| busy())?
    }

    /// Waits until the queued messages are written, at most `bound`.
    pub(crate) fn flush(&self, bound: Duration) {
        let (done, waiting) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // A writer that is blocked by a full pipe is abandoned: the process is about to end.
            let _ = waiting.recv_timeout(bound);
        }
    }
}

fn drain(waiting: &Receiver<Message>, dropped: &AtomicU64, mut out: impl Output) {
    while let Ok(message) = waiting.recv() {
        // A closed pipe does not stop the thread: a reader may return, and senders must not receive an error.
        match message {
            Message::Text(text) => {
                let _ = out.write_all(&text);
                let lost = dropped.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _ = writeln!(out, "log: {lost} messages dropped because the output was not read");
                }
            }
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
            Message::Reopen(done) => {
                let _ = done.send(out.reopen());
            }
        }
    }
}

/// The outputs of log lines: standard error, and a file when one is configured.
#[derive(Clone)]
struct Outputs(Arc<Vec<Sink>>);

/// A line that is being formatted.
struct Line {
    outputs: Outputs,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() {
            return;
        }
        let outputs = &self.outputs.0;
        for sink in outputs.iter().skip(1) {
            sink.write(text.clone());
        }
        if let Some(first) = outputs.first() {
            first.write(text);
        }
    }
}

impl<'a> MakeWriter<'a> for Outputs {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { outputs: self.clone(), text: Vec::with_capacity(128) }
    }
}

/// The running log.
pub(crate) struct Log {
    levels: Arc<Levels>,
    outputs: Outputs,
}

impl Log {
    /// Starts the log of this process. A second start in one process (tests) keeps the first one.
    pub(crate) fn start(level: Level, format: LogFormat, file: Option<LogFile>) -> io::Result<Self> {
        let mut sinks = vec![Sink::start(io::stderr())?];
        if let Some(file) = file {
            sinks.push(Sink::start(file)?);
        }
        let outputs = Outputs(Arc::new(sinks));
        let (filter, levels) = Levels::new(level);
        let lines = tracing_subscriber::fmt::layer().event_format(Format(format)).with_writer(outputs.clone());
        let subscriber = tracing_subscriber::registry().with(filter).with(lines);
        // Only a second start fails here; the first one stays in use.
        let _ = tracing::subscriber::set_global_default(subscriber);
        Ok(Log { levels, outputs })
    }

    /// Changes the level of the configuration.
    pub(crate) fn set_level(&self, level: Level) {
        self.levels.configure(level);
    }

    /// The log levels of the loggers.
    pub(crate) fn levels(&self) -> Arc<dyn LogLevels> {
        self.levels.clone()
    }

    /// Reopens the log file, as after a rename by logrotate.
    ///
    /// # Errors
    /// When opening fails; the old file stays open.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        self.outputs.0.iter().skip(1).try_for_each(|sink| sink.reopen(Duration::from_secs(1)))
    }

    /// Waits until logged lines are written, at most about a second.
    pub(crate) fn flush(&self) {
        for sink in self.outputs.0.iter() {
            sink.flush(Duration::from_secs(1));
        }
    }
}

/// Formats lines like Vault.
struct Format(LogFormat);

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let module = module(meta.target());
        let now = SystemClock.now();
        let millis = now.nanos().rem_euclid(1_000_000_000) / 1_000_000;
        let time = format!("{}.{millis:03}Z", now.rfc3339_seconds().trim_end_matches('Z'));
        match self.0 {
            LogFormat::Standard => {
                let level = match *meta.level() {
                    tracing::Level::ERROR => "[ERROR]",
                    tracing::Level::WARN => "[WARN] ",
                    tracing::Level::INFO => "[INFO] ",
                    tracing::Level::DEBUG => "[DEBUG]",
                    tracing::Level::TRACE => "[TRACE]",
                };
                write!(writer, "{time} {level} {module}: {}", fields.message)?;
                for (at, (name, value)) in fields.others.iter().enumerate() {
                    write!(writer, "{}{name}={value}", if at == 0 { ": " } else { " " })?;
                }
                writeln!(writer)
            }
            LogFormat::Json => {
                let mut object = serde_json::Map::new();
                object.insert("@level".into(), meta.level().to_string().to_ascii_lowercase().into());
                object.insert("@message".into(), fields.message.into());
                object.insert("@module".into(), module.into());
                object.insert("@timestamp".into(), time.into());
                for (name, value) in fields.others {
                    object.insert(name.into(), value.into());
                }
                writeln!(writer, "{}", serde_json::Value::Object(object))
            }
        }
    }
}

/// The module of a target: `core` for `keepfast_core::audit::broker`.
fn module(target: &str) -> &str {
    let head = target.split("::").next().unwrap_or(target);
    head.strip_prefix("keepfast_").unwrap_or(head)
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: &dyn fmt::Display) {
        // Control characters could fake a line of the log.
        let mut text = String::new();
        for c in value.to_string().chars() {
            if c.is_control() {
                let _ = write!(text, "{}", c.escape_default());
            } else {
                text.push(c);
            }
        }
        if field.name() == "message" {
            self.message = text;
        } else {
            self.others.push((field.name(), text));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, &value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A writer that reports its input, and waits for a permit before each message.
    struct Pipe {
        written: Sender<String>,
        go: Receiver<()>,
    }

    impl Output for Pipe {}

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.go.recv();
            let _ = self.written.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_reader_blocks_no_caller_and_drops_are_counted() {
        let ((written, seen), (go, waiting)) = (channel(), channel());
        let sink = Sink::start(Pipe { written, go: waiting }).unwrap();
        for n in 0..QUEUE + 100 {
            sink.write(n.to_string().into_bytes());
        }
        sink.flush(Duration::ZERO);
        drop(go);
        let all: Vec<String> =
            std::iter::from_fn(|| seen.recv_timeout(Duration::from_secs(10)).ok()).take(QUEUE).collect();
        assert_eq!(all[0], "0");
        assert!(all.iter().any(|l| l.contains("dropped because")), "{:?}", &all[..3]);
    }

    fn logged(format: LogFormat, say: impl FnOnce()) -> String {
        let ((written, seen), (go, waiting)) = (channel(), channel::<()>());
        drop(go);
        let outputs = Outputs(Arc::new(vec![Sink::start(Pipe { written, go: waiting }).unwrap()]));
        let lines = tracing_subscriber::fmt::layer().event_format(Format(format)).with_writer(outputs.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), say);
        seen.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    #[test]
    fn lines_have_the_format_of_vault() {
        let line = logged(LogFormat::Standard, || tracing::warn!(path = "a/b", tries = 3, "it is so"));
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, "[WARN]  server: it is so: path=a/b tries=3\n");
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");
        let line = logged(LogFormat::Json, || tracing::info!(path = "a", "it is so"));
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&json["@level"], &json["@message"], &json["@module"], &json["path"]),
            (&"info".into(), &"it is so".into(), &"server".into(), &"a".into())
        );
    }

    #[test]
    fn sec_al04_a_logged_value_cannot_fake_a_line() {
        let line = logged(LogFormat::Standard, || {
            tracing::info!(path = "a\n2026-01-01T00:00:00.000Z [INFO]  core: unsealed", "seen")
        });
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}
