//! Metrics of the machine: free and total bytes of the disk, and the expiry of the listeners' certificates.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use keepfast_core::settings::HostGauges;
use keepfast_edge::Tls;
use keepfast_framework::engine::Gauge;

use crate::config::Storage;

/// The sources of the metrics of the machine.
pub(crate) struct Gauges {
    /// The directory of the data; `None` for memory.
    data: Option<PathBuf>,
    /// The current certificates, with the addresses of their listeners.
    certificates: Vec<(String, Arc<Tls>)>,
}

impl Gauges {
    pub(crate) fn new(storage: &Storage, certificates: Vec<(String, Arc<Tls>)>) -> Self {
        let data = match storage {
            Storage::Raft { path, .. } | Storage::File { path } => Some(path.clone()),
            Storage::InMemory => None,
        };
        Gauges { data, certificates }
    }
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("data", &self.data).finish_non_exhaustive()
    }
}

impl HostGauges for Gauges {
    fn gauges(&self) -> Vec<Gauge> {
        let mut out = Vec::new();
        if let Some(disk) = self.data.as_ref().and_then(|path| rustix::fs::statvfs(path).ok()) {
            // The free bytes of this process: without the reserve for root.
            for (name, blocks) in
                [("storage.disk.free_bytes", disk.f_bavail), ("storage.disk.total_bytes", disk.f_blocks)]
            {
                let value = blocks as f64 * disk.f_frsize as f64;
                out.push(Gauge { name, value, labels: Vec::new() });
            }
        }
        for (address, tls) in &self.certificates {
            let Some(validity) = tls.validity() else { continue };
            let labels = vec![("listener", address.clone())];
            out.push(Gauge { name: "listener.certificate.not_after", value: validity.not_after.unix() as f64, labels });
        }
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use keepfast_edge::{ClientCertificates, TlsConfig, development};

    use super::*;

    fn gauge(host: &Gauges, name: &str) -> Gauge {
        host.gauges().into_iter().find(|gauge| gauge.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    #[test]
    fn disk_space_and_certificate_expiry_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::File { path: dir.path().into() };
        let files = development::write(dir.path(), vec!["localhost".to_owned()]).unwrap();
        let config = TlsConfig {
            cert_file: files.cert,
            key_file: files.key,
            tls12: true,
            tls13: true,
            clients: ClientCertificates::Disabled,
        };
        let tls = Arc::new(Tls::load(&config).unwrap());
        let host = Gauges::new(&storage, vec![("127.0.0.1:8200".to_owned(), tls.clone())]);
        let (free, total) =
            (gauge(&host, "storage.disk.free_bytes").value, gauge(&host, "storage.disk.total_bytes").value);
        assert!(free > 0.0 && total >= free, "{free} of {total}");
        let end = gauge(&host, "listener.certificate.not_after");
        assert_eq!(end.labels, [("listener", "127.0.0.1:8200".to_owned())]);
        assert_eq!(end.value as i64, tls.validity().unwrap().not_after.unix());
        assert!(Gauges::new(&Storage::InMemory, Vec::new()).gauges().is_empty());
    }
}
