//! The kernel with every engine in it, in one process: requests go in as the edge makes them, answers and audit come out.

mod admission;
mod audit;
mod audit_api;
mod audit_entries;
mod audit_size;
mod ceremonies;
mod constraints;
mod custody;
mod damage;
mod database_files;
mod derived;
mod fixture;
mod gate;
mod init;
mod inspect;
mod journey;
mod judged_paths;
mod lockout;
mod metrics;
mod mounts;
mod panics;
mod policies;
mod seal;
mod token_roles;
mod tokens;
mod wrapping;
