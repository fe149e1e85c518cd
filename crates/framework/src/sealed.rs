//! Handlers for a sealed server. They have no context, because the storage is not readable.

use std::future::Future;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Result, Status};
use crate::input::Input;
use crate::path::Operation;
use crate::reply::SentStatus;
use crate::routes::{Compiled, HandlerFuture, Request, Row, RowBuilder};
use crate::rows::OperationInfo;

/// The result of a handler for a sealed server. No audit device records it.
pub enum SealedResponse<T> {
    /// A JSON document.
    Document {
        /// The status: callers of `sys/health` choose that of the response.
        status: SentStatus,
        /// The document.
        document: T,
    },
    /// 204.
    Empty,
    /// The unsealed server handles the request, with authentication and audit.
    Passed,
}

impl<T> SealedResponse<T> {
    /// 200 with a document.
    pub fn ok(document: T) -> Self {
        SealedResponse::Document { status: Status::OK.into(), document }
    }
}

/// A type-erased [`SealedResponse`].
pub struct SealedReply {
    /// The status.
    pub status: SentStatus,
    /// JSON and a line feed; empty with 204.
    pub body: Vec<u8>,
}

/// A document type that a handler for a sealed server returns.
pub trait Document: Serialize + JsonSchema + Send + 'static {}
impl<T: Serialize + JsonSchema + Send + 'static> Document for T {}

/// Any `async fn(&E, Request) -> Result<SealedResponse<T>>`; no type implements it explicitly.
pub trait SealedHandler<'a, E, Q>: Send + Sync {
    /// The document type.
    type Document;
    /// The future of the handler.
    type Future: Future<Output = Result<SealedResponse<Self::Document>>> + Send + 'a;
    /// Calls the handler.
    fn call(&self, engine: &'a E, request: Q) -> Self::Future;
}

impl<'a, E: 'a, Q, T, F, Fut> SealedHandler<'a, E, Q> for F
where
    F: Fn(&'a E, Q) -> Fut + Send + Sync,
    Fut: Future<Output = Result<SealedResponse<T>>> + Send + 'a,
{
    type Document = T;
    type Future = Fut;
    fn call(&self, engine: &'a E, request: Q) -> Fut {
        self(engine, request)
    }
}

impl<E: Send + Sync + 'static> RowBuilder<'_, E> {
    /// GET, also on a sealed server and without audit; no other handler of the row gets it.
    pub fn read_sealed<Q: Request, T: Document, H>(self, handler: H) -> Self
    where
        H: for<'a> SealedHandler<'a, E, Q, Document = T> + 'static,
    {
        self.on_sealed(Operation::Read, handler)
    }

    /// POST and PUT, also on a sealed server and without audit. A request for which the handler returns
    /// [`SealedResponse::Passed`] goes to the handler of [`RowBuilder::update`], which is declared first.
    pub fn update_sealed<Q: Request, T: Document, H>(self, handler: H) -> Self
    where
        H: for<'a> SealedHandler<'a, E, Q, Document = T> + 'static,
    {
        self.on_sealed(Operation::Update, handler)
    }

    fn on_sealed<Q: Request, T: Document, H>(self, operation: Operation, handler: H) -> Self
    where
        H: for<'a> SealedHandler<'a, E, Q, Document = T> + 'static,
    {
        let Row { info, handlers } = &mut *self.row;
        info.sealed = true;
        if info.operation(operation).is_none() {
            info.operations.push(OperationInfo::replying::<Q>(operation, &info.patterns, |generator| {
                Some(generator.subschema_for::<T>())
            }));
        }
        handlers.sealed[operation.index()] = Some(action(handler));
        self
    }
}

impl<E: Send + Sync + 'static> Compiled<E> {
    /// Runs the sealed-server handler of the row at this index of the table. `None` without a handler; the future
    /// returns `None` when the handler leaves the request to the unsealed server.
    pub fn handle_sealed<'a>(
        &'a self,
        engine: &'a E,
        row: usize,
        operation: Operation,
        input: &'a Input,
    ) -> Option<HandlerFuture<'a, Option<SealedReply>>> {
        let action = self.handlers.get(row)?.sealed[operation.index()].as_ref()?;
        Some(action(engine, input))
    }
}

pub(crate) type SealedAction<E> =
    Box<dyn for<'a> Fn(&'a E, &'a Input) -> HandlerFuture<'a, Option<SealedReply>> + Send + Sync>;

/// Type-erases the handler.
fn action<E: 'static, Q: Request, T: Serialize + Send + 'static, H>(handler: H) -> SealedAction<E>
where
    H: for<'a> SealedHandler<'a, E, Q, Document = T> + 'static,
{
    Box::new(move |engine, input| match input.read::<Q>() {
        Err(error) => Box::pin(std::future::ready(Err(error))),
        Ok(request) => {
            let response = handler.call(engine, request);
            Box::pin(async move { reply(response.await?) })
        }
    })
}

fn reply<T: Serialize>(response: SealedResponse<T>) -> Result<Option<SealedReply>> {
    Ok(match response {
        SealedResponse::Document { status, document } => {
            let mut body = serde_json::to_vec(&document)?;
            body.push(b'\n');
            Some(SealedReply { status, body })
        }
        SealedResponse::Empty => Some(SealedReply { status: Status::NO_CONTENT.into(), body: Vec::new() }),
        SealedResponse::Passed => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Help, Nothing, Routes};
    use crate::{Cx, Error};

    const HELP: Help = Help { synopsis: "A thing.", description: "" };
    const CHOSEN: SentStatus = SentStatus { sent: Status(299), counted: Status(503) };

    async fn whole(state: &bool, _: Nothing) -> Result<SealedResponse<u8>> {
        match state {
            true => Ok(SealedResponse::Document { status: CHOSEN, document: 7 }),
            false => Err(Error::sealed()),
        }
    }

    async fn seal(state: &bool, _: Nothing) -> Result<SealedResponse<()>> {
        Ok(if *state { SealedResponse::Empty } else { SealedResponse::Passed })
    }

    async fn unsealed(_: &bool, _: &mut Cx, _: Nothing) -> Result<()> {
        Ok(())
    }

    #[tokio::test]
    async fn a_sealed_row_responds_without_a_context_or_passes_the_request_on() {
        let mut routes: Routes<bool> = Routes::new();
        routes.path("thing", HELP).read_sealed(whole);
        routes.path("seal", HELP).update(unsealed).update_sealed(seal);
        routes.path("other", HELP).update(unsealed);
        let compiled = Compiled::new(routes);
        let rows = compiled.table().rows();
        assert_eq!(rows.iter().map(|row| row.sealed).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(rows.iter().map(|row| row.operations.len()).collect::<Vec<_>>(), [1, 1, 1]);
        let input = Input::default();
        let reply = compiled.handle_sealed(&true, 0, Operation::Read, &input).unwrap().await.unwrap().unwrap();
        assert_eq!((reply.status, &reply.body[..]), (CHOSEN, &b"7\n"[..]));
        assert!(compiled.handle_sealed(&false, 0, Operation::Read, &input).unwrap().await.is_err());
        assert!(compiled.handle_sealed(&true, 0, Operation::Update, &input).is_none(), "no handler");
        assert!(compiled.handle_sealed(&true, 2, Operation::Update, &input).is_none(), "no sealed handler");
        let empty = compiled.handle_sealed(&true, 1, Operation::Update, &input).unwrap().await.unwrap().unwrap();
        assert_eq!((empty.status, empty.body.len()), (Status::NO_CONTENT.into(), 0));
        assert!(compiled.handle_sealed(&false, 1, Operation::Update, &input).unwrap().await.unwrap().is_none());
    }
}
