path "secret/*" {
  capabilities = ["read", "list"]

  # the application's own
}
