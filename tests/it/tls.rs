//! All connections use TLS under a certificate authority that the operator names: those to the PDS
//! and its stream, to the handle's page and to the mediator's document.

use serde_json::{Value, json};

use crate::answers::move_services;
use crate::network::in_both_shapes;
use crate::proxy::{Authority, Proxy};
use crate::service::Setup;

in_both_shapes! {
    fn a_network_behind_tls_is_followed_and_resolved(network) {
        let authority = Authority::new();
        let pds = Proxy::tls(&network.pds_url(0), &authority, &["localhost"]);
        let (web, _) = network.site();
        let alice = network.enrolled("alice", 0, json!({}));
        let page = Proxy::tls(&web, &authority, &[&alice.handle, "mediator.test"]);
        let setup = Setup::new(network)
            .source(json!({"url": pds.url("https"), "kind": "pds"}))
            .set("net.extra_ca_file", json!(authority.file()))
            .set("net.https_port", json!(page.port));
        // Only the page of the handle confirms the handle, and a name server that has its address.
        let name = format!("_atproto.{}", alice.handle);
        network.op("dns.set", json!({"name": name, "rcode": 3}));
        network.op("dns.set", json!({"name": "mediator.test", "a": "127.0.0.1"}));
        let serve = |host: &str, path: &str, body: Value| {
            let host = format!("{host}:{}", page.port);
            network.op("web.set", json!({"host": host, "path": path, "body": body}));
        };
        serve(&alice.handle, "/.well-known/atproto-did", json!(alice.did));
        let endpoint = format!("https://mediator.test:{}/didcomm", page.port);
        let document = crate::network::mediator_document("did:web:mediator.test", &endpoint);
        serve("mediator.test", "/.well-known/did.json", document);
        move_services(&alice, &pds.url("https"));

        let service = setup.clone().streams_only().no_refresh_on_demand().start();
        service.until_following(1);
        let put = alice.put(json!({"mediators": ["did:web:mediator.test"]}));
        let view = service.until_cid(&alice.did, &put["cid"]);
        assert_eq!(view["pds"], *pds.url("https"));
        assert_eq!(view["verification"]["source"], "pds");
        let view = service.until(&alice.did, "the handle and the mediator by https", |view| {
            view["handle"] == *alice.handle && view["mediators"][0]["state"] == "reachable"
        });
        assert_eq!(view["mediators"][0]["services"][0]["uri"], *endpoint);
        assert_eq!(service.recipient(&alice.handle).expect("the package")["did"], *alice.did);
        // A commit through the encrypted stream.
        let put = alice.put(json!({"label": "second"}));
        let view = service.until_cid(&alice.did, &put["cid"]);
        assert_eq!(view["verification"]["method"], "commit");

        // Certificates of another authority are refused.
        let other_authority = Authority::new();
        let distrusting = setup.set("net.extra_ca_file", json!(other_authority.file())).start();
        let refusal = distrusting.recipient(&alice.did).expect_err("no trust");
        assert_eq!((refusal.status, &*refusal.name), (502, "UpstreamFailure"));
        let refusal = distrusting.recipient(&alice.handle).expect_err("no trust");
        assert_eq!(refusal.name, "UpstreamFailure");
        assert_eq!(distrusting.metric("atcomm_ingest_connected", &[]), 0.0);
        network.op("dns.set", json!({"name": name, "txt": null}));
    }
}
