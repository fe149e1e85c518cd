//! Metrics of the process from the system: memory under Vault's names, and the `process_` metrics of Prometheus.

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::{Item, Value};

/// Values of `/proc/self`; unreadable ones are omitted.
pub(super) fn items() -> Vec<Item> {
    let gauge = |name: &str, value: f64| Item::new(name, Value::Gauge(value));
    let mut out = Vec::new();
    if let Some((whole, resident)) = memory() {
        out.push(gauge("runtime.alloc_bytes", resident));
        out.push(gauge("runtime.sys_bytes", whole));
        out.push(gauge("process_resident_memory_bytes", resident));
        out.push(gauge("process_virtual_memory_bytes", whole));
    }
    if let Some(Times { cpu, started, threads }) = times() {
        out.push(gauge("process_cpu_seconds_total", cpu));
        out.extend(started.map(|started| gauge("process_start_time_seconds", started)));
        out.push(gauge("process_threads", threads));
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // The directory itself is open while it is read.
        out.push(gauge("process_open_fds", open.count().saturating_sub(1) as f64));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        out.push(gauge("process_max_fds", most as f64));
    }
    out
}

/// The virtual and the resident memory, in bytes.
fn memory() -> Option<(f64, f64)> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split_ascii_whitespace().map(|n| n.parse::<u64>().ok());
    let bytes = |pages: u64| (pages * page_size() as u64) as f64;
    Some((bytes(pages.next()??), bytes(pages.next()??)))
}

struct Times {
    /// User and system time in seconds.
    cpu: f64,
    /// The start time in Unix seconds.
    started: Option<f64>,
    threads: f64,
}

fn times() -> Option<Times> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    read_times(&stat, &boot, clock_ticks_per_second() as f64)
}

/// Parses `/proc/self/stat` (proc_pid_stat(5)) and the boot time in `/proc/stat`.
fn read_times(stat: &str, boot: &str, ticks: f64) -> Option<Times> {
    // The second field is a name in parentheses that may contain blanks; the third field follows the last parenthesis.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let booted = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    Some(Times {
        cpu: (field(14)? + field(15)?) / ticks,
        started: booted.zip(field(22)).map(|(booted, after)| booted + after / ticks),
        threads: field(20)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_a_name_with_blanks_and_parentheses() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 3000 1000 50 18446744073709551615";
        let times = read_times(stat, "cpu 1\nbtime 1000\n", 100.0).unwrap();
        assert_eq!((times.cpu, times.started, times.threads), (3.0, Some(1030.0), 4.0));
        assert!(read_times("", "", 100.0).is_none() && read_times("7 (a) S 1", "", 100.0).is_none());
    }

    #[test]
    fn this_process_has_all_of_them() {
        let names: Vec<String> = items().into_iter().map(|i| i.name).collect();
        assert_eq!(names.len(), 9, "{names:?}");
        let Some(Value::Gauge(resident)) =
            items().into_iter().find(|i| i.name == "runtime.alloc_bytes").map(|i| i.value)
        else {
            panic!("no resident memory");
        };
        assert!(resident >= page_size() as f64 && resident % page_size() as f64 == 0.0, "{resident}");
    }
}
