//! `sys/host-info`: the machine of the server, from `/proc` and `/sys`.

mod disk;
mod machine;
mod memory;
mod processor;
mod reading;

use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Result, Routes};
use serde::Serialize;

use super::System;
use disk::Disk;
use machine::Machine;
use memory::Memory;
use processor::{Processor, Times};
use reading::text;

const HELP: Help = Help {
    synopsis: "Returns information about the host of the server.",
    description: "CPUs, disks, memory and operating system.",
};

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("host-info", HELP).final_slash().read(host_info).of_own_node().root_only();
}

/// The properties of the machine; a part that cannot be read is null and gives a warning.
#[derive(Serialize)]
struct HostInfo {
    timestamp: String,
    cpu: Option<Vec<Processor>>,
    cpu_times: Option<Vec<Times>>,
    disk: Option<Vec<Disk>>,
    host: Option<Machine>,
    memory: Option<Memory>,
}

async fn host_info(_: &System, cx: &mut Cx, _: Nothing) -> Result<Data<HostInfo>> {
    let timestamp = cx.now().rfc3339();
    // Files and disks are read on a thread that may block.
    let read = tokio::task::spawn_blocking(|| HostInfo::read(timestamp)).await;
    let info = read.map_err(Error::internal)?;
    for part in info.missing() {
        cx.warn(format!("failed to collect {part}"));
    }
    Ok(Data(info))
}

impl HostInfo {
    fn read(timestamp: String) -> Self {
        let stat = text("/proc/stat");
        HostInfo {
            timestamp,
            cpu: text("/proc/cpuinfo").map(|text| processor::all(&text)).filter(|all| !all.is_empty()),
            cpu_times: stat.as_deref().map(processor::times).filter(|all| !all.is_empty()),
            disk: disk::all(),
            host: stat.as_deref().and_then(Machine::read),
            memory: text("/proc/meminfo").as_deref().and_then(Memory::parse),
        }
    }

    /// The names of the parts that could not be read.
    fn missing(&self) -> impl Iterator<Item = &'static str> {
        let parts = [
            ("cpu", self.cpu.is_none()),
            ("cpu_times", self.cpu_times.is_none()),
            ("disk", self.disk.is_none()),
            ("host", self.host.is_none()),
            ("memory", self.memory.is_none()),
        ];
        parts.into_iter().filter(|(_, is_missing)| *is_missing).map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_read_as_a_whole() {
        let info = HostInfo::read("now".to_owned());
        assert_eq!(info.missing().count(), 0);
        assert!(info.memory.is_some_and(|memory| memory.total > 0));
        assert!(info.disk.is_some_and(|disks| disks.iter().any(|disk| disk.path == "/")));
    }
}
