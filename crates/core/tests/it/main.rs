//! The kernel with every engine in it, in one process: requests go in as the edge makes them, answers and audit come out.

mod audit;
mod derived;
mod fixture;
mod journey;
mod mounts;
mod policies;
mod seal;
mod tokens;
mod wrapping;
