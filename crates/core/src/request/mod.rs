//! The journey of a request, one stage a file.

pub mod incoming;
pub mod response;
