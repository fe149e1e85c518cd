//! The system: its name, uptime, platform and virtualization.

use std::path::Path;

use serde::Serialize;

use super::reading::{line, text};

/// The system that the server runs on.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    hostname: String,
    uptime: u64,
    boot_time: u64,
    procs: u64,
    os: &'static str,
    platform: String,
    platform_family: String,
    platform_version: String,
    kernel_version: String,
    kernel_arch: &'static str,
    virtualization_system: &'static str,
    virtualization_role: &'static str,
    #[serde(rename = "hostid")]
    host_id: String,
}

impl Machine {
    /// Reads the machine; `None` if `/proc/stat` has no boot time.
    pub(super) fn read(stat: &str) -> Option<Self> {
        let release = Release::parse(&text("/etc/os-release").unwrap_or_default());
        let (virtualization_system, virtualization_role) = virtualization();
        Some(Machine {
            hostname: line("/proc/sys/kernel/hostname"),
            uptime: line("/proc/uptime").split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0),
            boot_time: boot_time(stat)?,
            procs: processes(),
            os: std::env::consts::OS,
            platform_family: release.family(),
            platform_version: release.version(&line("/etc/debian_version")),
            platform: release.id,
            kernel_version: line("/proc/sys/kernel/osrelease"),
            kernel_arch: std::env::consts::ARCH,
            virtualization_system,
            virtualization_role,
            host_id: host_id(),
        })
    }
}

fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The number of processes.
fn processes() -> u64 {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    entries.flatten().filter(|entry| is_process(&entry.file_name())).count() as u64
}

/// A stable id of the machine: of its hardware, of its installation, or else of this boot.
fn host_id() -> String {
    let product = line("/sys/class/dmi/id/product_uuid").to_ascii_lowercase();
    if product.len() == 36 {
        return product;
    }
    let installed = line("/etc/machine-id");
    if installed.len() == 32 && installed.is_ascii() {
        let (a, b, c, d, e) =
            (&installed[..8], &installed[8..12], &installed[12..16], &installed[16..20], &installed[20..]);
        return format!("{a}-{b}-{c}-{d}-{e}");
    }
    line("/proc/sys/kernel/random/boot_id")
}

/// The virtualization system, and whether this is a guest or a host; empty if unknown.
fn virtualization() -> (&'static str, &'static str) {
    if Path::new("/.dockerenv").exists() {
        return ("docker", "guest");
    }
    if Path::new("/run/.containerenv").exists() {
        return ("podman", "guest");
    }
    if Path::new("/proc/xen").exists() {
        return ("xen", "guest");
    }
    let flags = text("/proc/cpuinfo").unwrap_or_default();
    if flags.split_whitespace().any(|flag| flag == "hypervisor") {
        return (hypervisor(&line("/sys/class/dmi/id/sys_vendor")), "guest");
    }
    if Path::new("/dev/kvm").exists() {
        return ("kvm", "host");
    }
    ("", "")
}

/// The hypervisor by the vendor of its virtual hardware.
fn hypervisor(vendor: &str) -> &'static str {
    let known = [
        ("QEMU", "kvm"),
        ("Google", "kvm"),
        ("Amazon", "kvm"),
        ("VMware", "vmware"),
        ("Microsoft", "hyperv"),
        ("innotek", "vbox"),
        ("Xen", "xen"),
    ];
    known.iter().find(|(name, _)| vendor.contains(name)).map_or("", |(_, system)| system)
}

/// `/etc/os-release` (man 5 os-release).
#[derive(Default)]
struct Release {
    id: String,
    like: String,
    version: String,
}

impl Release {
    fn parse(text: &str) -> Self {
        let mut out = Release::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once('=') else { continue };
            let value = value.trim().trim_matches(['"', '\'']).to_owned();
            match name {
                "ID" => out.id = value,
                "ID_LIKE" => out.like = value,
                "VERSION_ID" => out.version = value,
                _ => {}
            }
        }
        out
    }

    /// The version; Debian has its minor version in another file.
    fn version(&self, debian: &str) -> String {
        let is_debian = self.id == "debian" && !debian.is_empty();
        if is_debian { debian.to_owned() } else { self.version.clone() }
    }

    /// The family of the distribution; `rhel` is the oldest of its own.
    fn family(&self) -> String {
        let like = self.like.split_whitespace();
        let family = if self.like.contains("rhel") { Some("rhel") } else { like.last() };
        family.unwrap_or(&self.id).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_is_the_base_of_the_distribution() {
        let family = |text: &str| Release::parse(text).family();
        assert_eq!(family("ID=debian\nVERSION_ID=\"12\"\n"), "debian");
        assert_eq!(family("ID=ubuntu\nID_LIKE=debian\n"), "debian");
        assert_eq!(family("ID=rocky\nID_LIKE=\"rhel centos fedora\"\n"), "rhel");
        assert_eq!(family(""), "");
        assert_eq!(Release::parse("VERSION_ID='1.2'\nnonsense").version, "1.2");
    }

    #[test]
    fn the_start_is_read_off_the_statistics() {
        assert_eq!((boot_time("cpu 1\nbtime 1767225600\n"), boot_time("btime x")), (Some(1_767_225_600), None));
    }
}
