//! The API of Keepfast for secrets engines and auth methods.
//!
//! An engine is a table of routes with typed requests and replies ([`Engine::routes`]). Dispatch, validation, help, the
//! OpenAPI document and the derived tests use that table. A handler is an async function with three arguments:
//!
//! ```
//! use keepfast_framework::{Cx, Engine, Keys, Kind, Page, Records, Result, Data, Routes, fields::Text, routes::Help};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! /// Notes: the smallest engine there is.
//! pub struct Notes;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Note { text: String }
//! const NOTES: Records<Note> = Records::at("note/");
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Write {
//!     /// Name of the note.
//!     name: Text,
//!     /// What it says.
//!     text: Text,
//! }
//! #[derive(Deserialize, JsonSchema)]
//! struct SecretPath {
//!     /// Name of the note.
//!     name: Text,
//! }
//!
//! async fn write(_: &Notes, cx: &mut Cx, req: Write) -> Result<()> {
//!     NOTES.put(cx, &req.name, &Note { text: req.text.into() })
//! }
//! async fn read(_: &Notes, cx: &mut Cx, req: SecretPath) -> Result<Option<Data<Note>>> {
//!     Ok(NOTES.get(cx, &req.name).await?.map(Data))
//! }
//!
//! impl Engine for Notes {
//!     const TYPE: &'static str = "notes";
//!     const KIND: Kind = Kind::Secrets;
//!     fn routes(r: &mut Routes<Self>) {
//!         r.path("{name}", Help { synopsis: "A note.", description: "" }).read(read).update(write);
//!     }
//!     async fn open(_: &mut Cx) -> Result<Self> { Ok(Notes) }
//! }
//! # fn main() {}
//! ```

pub mod clock;
pub mod cx;
pub mod engine;
pub mod error;
pub mod external_key;
mod field_value;
pub mod fields;
pub mod file_body;
pub mod help;
mod incoming;
pub mod input;
mod json_error;
pub mod lease;
pub mod mount;
mod name;
pub mod offload;
pub mod openapi;
pub mod path;
pub mod path_field;
mod query;
mod raw_object;
pub mod read_cache;
pub mod records;
pub mod reply;
pub mod routes;
pub mod rows;
pub mod seal;
pub mod sealed;
pub mod services;
mod state_index;
pub mod testing;
pub mod text_limits;
pub mod throttle;
pub mod tls_session;
pub mod token_params;

pub use clock::{Clock, Timestamp};
pub use cx::{Caller, Cx};
pub use engine::{Engine, Kind, Mountable, Opened};
pub use error::{Error, ErrorKind, Result, Status, error_body};
pub use file_body::FileBody;
pub use incoming::{AuditedHeader, Authorization, ClusterPart, Incoming, UnauthedEndpoints};
pub use input::{Body, Input, RawBody};
pub use keepfast_go::duration;
pub use keepfast_storage::Page;
pub use lease::{HeldLease, LeaseOffer, LeaseTerms};
pub use path::{CanonicalPath, Operation};
pub use query::{Query, QueryValue};
pub use read_cache::ReadCache;
pub use records::Records;
pub use reply::{Data, Intended, Keys, Leased, Login, LoginAttempt, Outcome, Reply};
pub use routes::{Routes, Table};
pub use state_index::StateIndex;
pub use tls_session::TlsSession;
