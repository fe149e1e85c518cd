//! TLS to PostgreSQL with `sslmode` and the related parameters.

use rustls::ClientConfig;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::connection::{DatabaseError, OpenError};
use super::super::details::{Details, text};
use super::super::files::{FileDirectories, LocalPath};
use super::super::tls::{self, Material, Verify, Versions};
use super::parameters::Parameters;

/// The encryption of a connection.
pub(super) struct Encryption {
    pub(super) mode: SslMode,
    pub(super) negotiation: SslNegotiation,
    verify: Verify,
    versions: Versions,
    sends_name: bool,
    authorities: Source,
    certificate: Source,
    key: Source,
    /// The driver's TLS configuration, built once if no files are used.
    prebuilt: Option<MakeRustlsConnect>,
}

/// The source of PEM.
enum Source {
    Absent,
    Pem(String),
    /// Read for each connection, so a renewed certificate takes effect.
    File {
        parameter: &'static str,
        path: LocalPath,
    },
}

impl Source {
    fn is_given(&self) -> bool {
        !matches!(self, Source::Absent)
    }

    /// The PEM. Blocks if it is a file.
    fn pem(&self) -> Result<Option<String>, String> {
        match self {
            Source::Absent => Ok(None),
            Source::Pem(pem) => Ok(Some(pem.clone())),
            Source::File { parameter, path } => {
                let unusable = || format!("the file of {parameter} cannot be used");
                let pem = path.read().map_err(|()| unusable())?;
                // The same text for a file of a wrong type, so the error does not reveal its content.
                let is_fit = match *parameter {
                    "sslkey" => tls::is_private_key(&pem),
                    _ => tls::certificates(&pem, parameter).is_ok(),
                };
                if is_fit { Ok(Some(pem)) } else { Err(unusable()) }
            }
        }
    }
}

/// `sslmode`, <https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS>.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

const MODES: &[(&str, Mode)] = &[
    ("disable", Mode::Disable),
    // The server decides, but TLS is always verified.
    ("allow", Mode::Prefer),
    ("prefer", Mode::Prefer),
    ("require", Mode::Require),
    ("verify-ca", Mode::VerifyCa),
    ("verify-full", Mode::VerifyFull),
];

impl Encryption {
    /// Parses the settings of TLS: PEM in settings, or files in the connection string.
    ///
    /// # Errors
    /// When a setting is invalid.
    pub(super) fn read(
        details: &Details,
        parameters: &Parameters,
        files: &FileDirectories,
    ) -> Result<Encryption, OpenError> {
        let source = |parameter: &'static str, setting: &str| -> Result<Source, OpenError> {
            let named = parameters.get(parameter).filter(|path| parameter != "sslrootcert" || *path != "system");
            let path =
                named.map(|path| files.locate(parameter, path, &format!("give PEM in {setting}"))).transpose()?;
            Ok(match (text(details, setting), path) {
                (Some(pem), _) => Source::Pem(pem),
                (None, Some(path)) => Source::File { parameter, path },
                (None, None) => Source::Absent,
            })
        };
        let authorities = source("sslrootcert", "tls_ca")?;
        let certificate = source("sslcert", "tls_certificate")?;
        let key = source("sslkey", "private_key")?;
        let is_system = parameters.get("sslrootcert") == Some("system");
        let invalid = |why: String| OpenError::Url(format!("cannot parse connection url: {why}"));
        let absent = if is_system { Mode::VerifyFull } else { Mode::Prefer };
        let mode = parameters.one_of("sslmode", MODES, absent).map_err(invalid)?;
        if is_system && mode != Mode::VerifyFull {
            return Err(invalid("sslrootcert=system needs sslmode=verify-full".to_owned()));
        }
        let negotiations = [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];
        let negotiation =
            parameters.one_of("sslnegotiation", &negotiations, SslNegotiation::Postgres).map_err(invalid)?;
        if negotiation == SslNegotiation::Direct && matches!(mode, Mode::Disable | Mode::Prefer) {
            return Err(invalid("sslnegotiation=direct needs sslmode=require or a stronger one".to_owned()));
        }
        let verify = match mode {
            Mode::VerifyCa => Verify::ChainOnly,
            // As in libpq: with a CA of its own it means verify-ca.
            Mode::Require if authorities.is_given() => Verify::ChainOnly,
            _ => Verify::Everything,
        };
        let mut out = Encryption {
            mode: match mode {
                Mode::Disable => SslMode::Disable,
                Mode::Prefer => SslMode::Prefer,
                Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
            },
            negotiation,
            verify,
            versions: versions(parameters).map_err(invalid)?,
            sends_name: parameters.one_of("sslsni", &[("1", true), ("0", false)], true).map_err(invalid)?,
            authorities,
            certificate,
            key,
            prebuilt: None,
        };
        let names_file =
            [&out.authorities, &out.certificate, &out.key].iter().any(|s| matches!(s, Source::File { .. }));
        if mode == Mode::Disable {
            out.prebuilt = Some(MakeRustlsConnect::new(tls::client(&Material::default(), Verify::Everything)?));
        } else if !names_file {
            out.prebuilt = Some(MakeRustlsConnect::new(out.build()?));
        }
        Ok(out)
    }

    /// Builds the driver's TLS configuration. Blocks if files are used.
    fn build(&self) -> Result<ClientConfig, String> {
        let material = Material {
            authorities: self.authorities.pem()?,
            certificate: self.certificate.pem()?,
            key: self.key.pem()?,
        };
        let mut config = tls::client_of_versions(&material, self.verify, self.versions)?;
        config.enable_sni = self.sends_name;
        if self.negotiation == SslNegotiation::Direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(config)
    }

    /// The driver's TLS configuration for a new connection; reads the files again.
    ///
    /// # Errors
    /// When a file cannot be used; names the parameter without the reason.
    pub(super) async fn connector(self: &std::sync::Arc<Self>) -> Result<MakeRustlsConnect, DatabaseError> {
        if let Some(prebuilt) = &self.prebuilt {
            return Ok(prebuilt.clone());
        }
        let this = self.clone();
        // Reading a disk may be slow.
        let built = tokio::task::spawn_blocking(move || this.build()).await;
        let built = built.map_err(|_| DatabaseError::new("the files of the connection cannot be used"))?;
        built.map(MakeRustlsConnect::new).map_err(DatabaseError::new)
    }
}

/// `ssl_min_protocol_version` and `ssl_max_protocol_version`; versions before 1.2 are never used.
fn versions(parameters: &Parameters) -> Result<Versions, String> {
    let bound = |name: &str| {
        parameters.get(name).map(|value| match value.to_ascii_lowercase().as_str() {
            "tlsv1" | "tlsv1.1" => Ok(1),
            "tlsv1.2" => Ok(2),
            "tlsv1.3" => Ok(3),
            _ => Err(format!("{name} is invalid")),
        })
    };
    let least = bound("ssl_min_protocol_version").transpose()?.unwrap_or(2);
    let most = bound("ssl_max_protocol_version").transpose()?.unwrap_or(3);
    match (least, most) {
        (..=2, 3) => Ok(Versions::All),
        (3, 3) => Ok(Versions::Only13),
        (..=2, 2) => Ok(Versions::Only12),
        _ => Err("ssl_max_protocol_version leaves no version of TLS from 1.2 on".to_owned()),
    }
}
