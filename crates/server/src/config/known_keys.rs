//! Keys of Vault and OpenBao that have no effect in Keepfast: a configuration that sets them starts, with a warning.
//!
//! Sources: <https://developer.hashicorp.com/vault/docs/configuration> and <https://openbao.org/docs/configuration/>.

/// Keys of the top level, blocks included.
pub(super) const TOP_LEVEL: &[&str] = &[
    "activation_flags",
    "adaptive_overload_protection",
    "administrative_namespace_path",
    "allow_unauthenticated_workflows",
    "cache_size",
    "cloud",
    "cluster_cipher_suites",
    "detect_deadlocks",
    "disable_cache",
    "disable_clustering",
    "disable_indexing",
    "disable_performance_standby",
    "disable_printable_check",
    "disable_sentinel_trace",
    "disable_ssct_tokens",
    "enable_multiseal",
    "enable_post_unseal_trace",
    "enable_response_header_hostname",
    "enable_response_header_raft_node_id",
    "enable_unauthenticated_access",
    "entropy",
    "experiments",
    "feature_flags",
    "imprecise_lease_role_tracking",
    "license",
    "license_path",
    "log_requests_level",
    "observations",
    "plugin",
    "plugin_auto_download",
    "plugin_auto_register",
    "plugin_directory",
    "plugin_download_behavior",
    "plugin_download_max_size",
    "plugin_file_permissions",
    "plugin_file_uid",
    "plugin_tmpdir",
    "post_unseal_trace_directory",
    "raw_storage_endpoint",
    "remove_irrevocable_lease_after",
    "replication",
    "reporting",
    "request_limiter",
    "sentinel",
    "service_registration",
    "tls_auto_reload",
    "tls_auto_reload_interval",
    "unsafe_cross_namespace_identity",
];

/// Keys of every listener.
pub(super) const LISTENER: &[&str] = &[
    "agent_api",
    "chroot_namespace",
    "cors_allow_credentials",
    "cors_allowed_headers",
    "cors_allowed_origins",
    "cors_enabled",
    "disable_replication_status_endpoints",
    "disable_request_limiter",
    "http_write_timeout",
    "profiling",
    "proxy_api",
    "purpose",
    "redact_addresses",
    "redact_cluster_name",
    "redact_version",
    "require_request_header",
    "role",
    "tls_auto_reload",
    "tls_auto_reload_interval",
    "tls_cipher_suites",
    "tls_key_exchange_preferences",
    "tls_prefer_server_cipher_suites",
    "x_forwarded_for_client_cert_decoders",
    "x_forwarded_for_client_cert_header",
    "x_forwarded_for_client_cert_keep_not_forwarded",
    "x_forwarded_for_client_cert_keep_unauthorized",
];

/// Keys that only a listener on a Unix socket has.
pub(super) const UNIX_ONLY: &[&str] = &["socket_group", "socket_mode", "socket_user"];

/// Keys that only a TCP listener has: a Unix socket has no TLS.
pub(super) const TCP_ONLY: &[&str] = &[
    "cluster_address",
    "tls_cert_file",
    "tls_client_ca_file",
    "tls_disable",
    "tls_disable_client_certs",
    "tls_key_file",
    "tls_max_version",
    "tls_min_version",
    "tls_require_and_verify_client_cert",
];

/// Keys of a TCP listener for certificates of an ACME CA, which Keepfast does not request.
pub(super) const ACME: &[&str] = &[
    "tls_acme_alpn_challenge_port",
    "tls_acme_ca_directory",
    "tls_acme_ca_root",
    "tls_acme_cache_path",
    "tls_acme_challenge_host",
    "tls_acme_disable_alpn_challenge",
    "tls_acme_disable_http_challenge",
    "tls_acme_domains",
    "tls_acme_eab_key_id",
    "tls_acme_eab_mac_key",
    "tls_acme_email",
    "tls_acme_http_challenge_port",
    "tls_acme_key_type",
    "tls_acme_test_ca_directory",
];

/// Keys of the `telemetry` block of a listener.
pub(super) const LISTENER_TELEMETRY: &[&str] =
    &["disallow_metrics", "unauthenticated_in_flight_requests_access", "unauthenticated_pprof_access"];

/// Keys of integrated storage that tune features that Keepfast's store does not have.
pub(super) const RAFT: &[&str] = &[
    "autopilot_update_interval",
    "autopilot_upgrade_version",
    "autopilot_redundancy_zone",
    "disable_fsync",
    "max_entry_size",
    "max_mount_and_namespace_table_entry_size",
    "max_transaction_size",
    "raft_log_verifier_enabled",
    "raft_log_verification_interval",
    "raft_wal",
    "snapshot_interval",
    "snapshot_threshold",
    "trailing_logs",
];

/// Storage types of Vault and OpenBao that Keepfast does not have.
pub(super) const OTHER_STORAGE: &[&str] = &[
    "aerospike",
    "alicloudoss",
    "azure",
    "cassandra",
    "cockroachdb",
    "consul",
    "couchdb",
    "dynamodb",
    "etcd",
    "foundationdb",
    "gcs",
    "manta",
    "mssql",
    "mysql",
    "oci",
    "postgresql",
    "s3",
    "spanner",
    "swift",
    "zookeeper",
];
