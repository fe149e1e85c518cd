# policy: myapp-api
path "secret/data/myapp/*" {
  capabilities = ["read"]
}

path "database/creds/myapp-readwrite" {
  capabilities = ["read"]
}

path "transit/encrypt/myapp" {
  capabilities = ["update"]
}

path "transit/decrypt/myapp" {
  capabilities = ["update"]
}

# Deny access to other apps' secrets
path "secret/data/payments/*" {
  capabilities = ["deny"]
}
