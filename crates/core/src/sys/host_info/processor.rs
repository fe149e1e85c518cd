//! Processors: `/proc/cpuinfo` and `/proc/stat` (man 5 proc_cpuinfo, proc_stat).

use serde::Serialize;

/// Ticks per second in `/proc/stat` (`USER_HZ`): 100 on every architecture that Rust's standard library has for Linux.
const TICKS: f64 = 100.0;

/// One logical processor.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Processor {
    cpu: i64,
    vendor_id: String,
    family: String,
    model: String,
    stepping: i64,
    physical_id: String,
    core_id: String,
    cores: u32,
    model_name: String,
    mhz: f64,
    cache_size: i64,
    flags: Vec<String>,
    microcode: String,
}

/// The times of a processor by state, in seconds since boot.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Times {
    cpu: String,
    user: f64,
    system: f64,
    idle: f64,
    nice: f64,
    iowait: f64,
    irq: f64,
    softirq: f64,
    steal: f64,
    guest: f64,
    guest_nice: f64,
}

/// All processors of `/proc/cpuinfo`.
pub(super) fn all(text: &str) -> Vec<Processor> {
    let mut out: Vec<Processor> = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.trim() == "processor"
            && let Ok(cpu) = value.parse()
        {
            out.push(Processor { cpu, cores: 1, ..Processor::default() });
        } else if let Some(processor) = out.last_mut() {
            processor.note(name.trim(), value);
        }
    }
    out
}

impl Processor {
    fn note(&mut self, name: &str, value: &str) {
        let number = |value: &str| value.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        match name {
            "vendor_id" | "CPU implementer" => self.vendor_id = value.to_owned(),
            "cpu family" | "CPU architecture" => self.family = value.to_owned(),
            "model" | "CPU part" => self.model = value.to_owned(),
            "model name" => self.model_name = value.to_owned(),
            "stepping" | "CPU revision" => self.stepping = number(value),
            "physical id" => self.physical_id = value.to_owned(),
            "core id" => self.core_id = value.to_owned(),
            "cpu MHz" => self.mhz = value.parse().unwrap_or(0.0),
            "cache size" => self.cache_size = number(value),
            "flags" | "Features" => self.flags = value.split_whitespace().map(str::to_owned).collect(),
            "microcode" => self.microcode = value.to_owned(),
            _ => {}
        }
    }
}

/// The times of each processor in `/proc/stat`, without the line of their sum.
pub(super) fn times(text: &str) -> Vec<Times> {
    text.lines().filter_map(times_of).collect()
}

fn times_of(line: &str) -> Option<Times> {
    let mut words = line.split_whitespace();
    let cpu = words.next().filter(|name| name.starts_with("cpu") && *name != "cpu")?;
    // Older kernels have fewer columns.
    let mut seconds = || words.next().and_then(|n| n.parse::<f64>().ok()).map_or(0.0, |ticks| ticks / TICKS);
    let (user, nice, system, idle) = (seconds(), seconds(), seconds(), seconds());
    let (iowait, irq, softirq, steal, guest, guest_nice) =
        (seconds(), seconds(), seconds(), seconds(), seconds(), seconds());
    Some(Times { cpu: cpu.to_owned(), user, system, idle, nice, iowait, irq, softirq, steal, guest, guest_nice })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_distinguished() {
        let text = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu MHz\t\t: 2445.5\ncache size\t: 512 KB\nflags\t: fpu vme\n\n\
                    processor\t: 1\nstepping\t: 3\n";
        let found = all(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].vendor_id.as_str(), found[0].mhz, found[0].cache_size), ("GenuineIntel", 2445.5, 512));
        assert_eq!((found[0].flags.len(), found[1].cpu, found[1].stepping), (2, 1, 3));
    }

    #[test]
    fn times_are_seconds_of_each_processor() {
        let found = times("cpu  300 0 0 0\ncpu0 100 0 250 1000 5\ncpu1 200\nintr 1\n");
        assert_eq!(found.iter().map(|t| t.cpu.as_str()).collect::<Vec<_>>(), ["cpu0", "cpu1"]);
        assert_eq!((found[0].user, found[0].system, found[0].idle, found[0].iowait), (1.0, 2.5, 10.0, 0.05));
        assert_eq!((found[1].user, found[1].guest_nice), (2.0, 0.0));
    }
}
