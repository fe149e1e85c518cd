//! The kernel with every engine in it, in one process: requests go in as the edge makes them, answers and audit come out.

mod fixture;
mod journey;
mod tokens;
