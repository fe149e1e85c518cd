//! The TLS session of the connection in handlers.

use std::sync::Arc;

use keepfast_framework::engine::Registered;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::tls_session::{ChainCheck, ClientChain, TlsVersion};
use keepfast_framework::{Cx, Data, Engine, Kind, Result, Routes, TlsSession};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::tests::fixture::{ROOT, RequestOptions, TestServer};

/// An engine whose one path returns the client certificate of the connection.
struct Certificates;

#[derive(Serialize, JsonSchema)]
struct Certificate {
    /// The certificate of the client, byte by byte.
    leaf: Option<Vec<u8>>,
}

impl Engine for Certificates {
    const TYPE: &'static str = "certificates";
    const KIND: Kind = Kind::Secrets;

    fn routes(r: &mut Routes<Self>) {
        r.path("leaf", Help { synopsis: "", description: "" }).read(read);
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        Ok(Certificates)
    }
}

async fn read(_: &Certificates, cx: &mut Cx, _: Nothing) -> Result<Data<Certificate>> {
    let chain = cx.request().tls.as_ref().and_then(|tls| tls.client_chain.as_ref());
    Ok(Data(Certificate { leaf: chain.map(|chain| chain.leaf.to_vec()) }))
}

#[tokio::test]
async fn a_handler_sees_the_client_certificate_of_its_connection() {
    let engines = keepfast_engines::all().preceded_by(vec![Registered::of::<Certificates>()]);
    let server = TestServer::with(|_, _| {}, engines).await;
    server.post("sys/mounts/certificates", ROOT, json!({ "type": "certificates" })).await.ok();
    let session = |leaf: Option<&[u8]>| TlsSession {
        version: TlsVersion::Tls13,
        cipher_suite: 0x1301,
        alpn: None,
        server_name: None,
        client_chain: leaf.map(|leaf| ClientChain {
            leaf: leaf.into(),
            intermediates: Vec::new(),
            check: ChainCheck::KeyOnly,
        }),
    };
    for (tls, expected) in
        [(None, Value::Null), (Some(session(None)), Value::Null), (Some(session(Some(&[7, 8]))), json!([7, 8]))]
    {
        let send = RequestOptions { token: Some(ROOT.to_owned()), tls: tls.map(Arc::new), ..RequestOptions::default() };
        assert_eq!(server.send("GET", "certificates/leaf", send).await.data()["leaf"], expected);
    }
}
