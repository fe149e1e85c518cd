path "a" {
